"""A token cache: what a frozen backbone makes of every view of a dataset, kept in files.

    <folder>/about.json        what it was made of and how
    <folder>/train/00000.npy   float16 (views, ...): the first training video's views
    <folder>/val/00000.npy     float16 (views, ...): the first test video's

A view's tokens are (T', D); networks whose heads start from something else keep that instead
(`VideoNet.encode`). A video's file appears whole or not at all, so a cache is complete when all
files are there, and it can be made by any number of processes, in any number of attempts.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from datasets import DataError
from datasets.lists import VideoRecord
from datasets.sampling import CLIP_RULES
from engine.weights.convert import hash_tensors
from models import NETWORKS, ArchSpec, VideoNet
from models.backbones import BACKBONES

FORMAT = 1
ABOUT = "about.json"
PARTS = ("train", "val")


class VideoTokens(Sequence[np.ndarray]):
    """Each video's views, float16 (views, ...), memory-mapped when asked for.

    Args:
        paths: the videos' files.
        rows: which views of each are meant.
    """

    def __init__(self, paths: Sequence[Path], rows: Sequence[slice]):
        self.paths, self.rows = paths, rows

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, video: int) -> np.ndarray:
        # "c": what is written, which torch warns of otherwise, would not reach the file.
        return np.load(self.paths[video], mmap_mode="c")[self.rows[video]]


@dataclass(frozen=True)
class CachedPart:
    """Videos of a list, in its order, with their tokens and labels, int64 (videos,)."""

    records: list[VideoRecord]
    tokens: Sequence[np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class TokenCache:
    """An open cache.

    Attributes:
        folder: where it lies.
        about: what it was made of and how; see docs/CACHE.md.
        train: the training views.
        val: the test's views in the test's order, clips x crops.
        central: one view a test video: the centre crop of the central clip, as in validation.
    """

    folder: Path
    about: dict
    train: CachedPart
    val: CachedPart
    central: CachedPart


def cache_name(spec: ArchSpec) -> str:
    """What of a network is cached: the start of its name, alike for all heads on one backbone."""
    parts = (spec.modality, BACKBONES[spec.backbone].naming.format(spec.frames), spec.reduction)
    return "_".join(part for part in (*parts, NETWORKS[spec.head].encodes) if part)


def default_folder(spec: ArchSpec, dataset: str, split: int) -> str:
    """Where the cache of a split lies, seen from the repository."""
    return f"datasets/{dataset}_tokens/{cache_name(spec)}_split{split}"


def encoder_entries(model: VideoNet) -> dict[str, Tensor]:
    """The weights that `model.encode` uses."""
    inside = tuple(f"{name}." for name in model.encoder_parts())
    return {key: value for key, value in model.state_dict().items() if key.startswith(inside)}


def encoder_hash(model: VideoNet) -> str:
    """SHA-256 of the weights that `model.encode` uses."""
    return hash_tensors(encoder_entries(model))


def fingerprint(records: Sequence[VideoRecord]) -> dict:
    """What was read: the place for whatever tells one state of the data from another."""
    lines = "".join(f"{r.folder} {r.count} {r.label}\n" for r in records)
    return {"videos": len(records), "list_sha256": hashlib.sha256(lines.encode()).hexdigest()}


def start_cache(folder: Path, about: dict) -> None:
    """Writes about.json, or raises DataError if the folder holds a cache of something else."""
    if (folder / ABOUT).exists():
        earlier = read_about(folder)
        different = differences(earlier, about)
        if different:
            raise DataError(
                f"{folder} holds tokens of another kind, different in {', '.join(different)}: "
                + "; ".join(f"{key} {_short(earlier.get(key))}" for key in different)
                + "; remove that folder, or name another with --cache"
            )
        return
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    # A name of its own: processes of other machines may begin at the same moment.
    temporary = folder / f"{ABOUT}.{uuid.uuid4().hex}"
    temporary.write_text(json.dumps(about, indent=1), encoding="utf-8")
    temporary.replace(folder / ABOUT)


def differences(one: dict, other: dict) -> list[str]:
    """In what two caches are not of the same kind.

    It does not matter which head was named, nor where the weights lay; and of the data only what
    both tell of it.
    """
    found = [key for key in one if key not in ("arch", "weights", "fingerprint")]
    found = [key for key in found if one[key] != other.get(key)]
    if one["weights"]["sha256"] != other["weights"]["sha256"]:
        found.append("weights")
    data = (one["fingerprint"], other["fingerprint"])
    return found + ["fingerprint"] * any(not same_data(*(d[part] for d in data)) for part in PARTS)


def same_data(one: dict, other: dict) -> bool:
    """Whether two fingerprints agree in all that both tell."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."


def read_about(folder: Path) -> dict:
    """A cache's about.json; raises DataError if the folder holds none that can be read."""
    path = folder / ABOUT
    if not path.is_file():
        raise DataError(
            f"no token cache {folder}: there is no {path}; make it with scripts/cache_tokens.py"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        number = about["format"]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error!r}; make the cache again") from None
    if number != FORMAT:
        raise DataError(f"{path} is of format {number}, this code reads {FORMAT}")
    return about


def video_path(folder: Path, part: str, video: int) -> Path:
    return folder / part / f"{video:05d}.npy"


def store_tokens(path: Path, tokens: np.ndarray) -> None:
    """Writes a video's tokens (views, ...) in float16, to the disk itself, whole or not at all."""
    with np.errstate(over="ignore"):
        half = tokens.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError(f"{path}: the tokens reach {np.abs(tokens).max()}, beyond float16")
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.save(file, half)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def count_views(about: dict, part: str, record: VideoRecord) -> tuple[int, int]:
    """How many views of a video are kept: the part's own, and behind them a central one.

    Central is what validation sees. The single-clip test begins with it, other tests lack it.
    """
    views = about["views"]
    if part == "train":
        return views["train"], 0
    clips = CLIP_RULES[views["clips"]](record.count, about["frames"])
    return len(clips) * views["crops"], int(views["clips"] != "single")


def open_cache(folder: Path, parts: Sequence[str] = PARTS) -> TokenCache:
    """Opens a cache and looks at all files of these parts; the other part is left empty.

    Raises DataError for what is no cache, or is not complete.
    """
    about = read_about(folder)
    empty = CachedPart([], [], np.empty(0, np.int64))
    found = {part: empty for part in (*PARTS, "central")}
    try:
        shapes = set()
        for part in parts:
            records = _records(folder, about, part)
            counts = [count_views(about, part, record) for record in records]
            paths = [video_path(folder, part, video) for video in range(len(records))]
            shapes |= _check_files(folder, paths, [sum(count) for count in counts])
            found[part] = _part(records, paths, [slice(own) for own, _ in counts])
            if part == "val":
                central = [slice(own, own + 1) if extra else slice(1) for own, extra in counts]
                found["central"] = _part(records, paths, central)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {folder / ABOUT}: {error!r}") from None
    if len(shapes) > 1:
        raise DataError(f"{folder} holds tokens of different shapes: {sorted(shapes)}")
    return TokenCache(folder=folder, about=about, **found)


def _records(folder: Path, about: dict, part: str) -> list[VideoRecord]:
    return [
        VideoRecord(name, int(count), int(label), f"{folder / ABOUT}: {part} video {number}")
        for number, (name, count, label) in enumerate(about["records"][part], 1)
    ]


def _part(records: list[VideoRecord], paths: list[Path], rows: list[slice]) -> CachedPart:
    labels = np.array([record.label for record in records], np.int64)
    return CachedPart(records, VideoTokens(paths, rows), labels)


def _check_files(folder: Path, paths: Sequence[Path], views: Sequence[int]) -> set[tuple]:
    """The shapes of a view; raises DataError unless each file holds so many views of it."""
    missing = sum(not path.exists() for path in paths)
    if missing:
        raise DataError(
            f"{folder} is not complete: {missing} of {len(paths)} videos of '{paths[0].parent.name}"
            "' are missing; run scripts/cache_tokens.py again with its flags, it goes on from there"
        )
    shapes = set()
    for path, number in zip(paths, views, strict=True):
        try:
            tokens = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} is truncated or no array ({error}); remove it and run "
                "scripts/cache_tokens.py again"
            ) from None
        if tokens.dtype != np.float16 or len(tokens) != number:
            raise DataError(
                f"{path} holds {len(tokens)} views in {tokens.dtype}, not {number} in float16; "
                "remove it and run scripts/cache_tokens.py again"
            )
        shapes.add(tokens.shape[1:])
    return shapes
