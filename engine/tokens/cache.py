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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from datasets import DataError
from datasets.files import written_whole
from datasets.records import VideoRecord
from datasets.sampling import CLIP_RULES
from engine.data import SUBSETS
from engine.weights.convert import hash_tensors
from models import NETWORKS, ArchSpec, VideoNet
from models.backbones import BACKBONES

CACHE_FORMAT = 1
METADATA_FILE = "about.json"


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

    def take(self, videos: Sequence[int]) -> "VideoTokens":
        """Those of some videos."""
        return VideoTokens([self.paths[v] for v in videos], [self.rows[v] for v in videos])

    def __getitem__(self, video: int) -> np.ndarray:
        # "c": what is written, which torch warns of otherwise, would not reach the file.
        return np.load(self.paths[video], mmap_mode="c")[self.rows[video]]


@dataclass(frozen=True)
class CachedSubset:
    """Videos of a list, in its order, with their tokens and labels, int64 (videos,)."""

    records: list[VideoRecord]
    tokens: Sequence[np.ndarray]
    labels: np.ndarray

    def take(self, videos: Sequence[int]) -> "CachedSubset":
        """Some of the videos."""
        tokens = self.tokens.take(videos)
        return CachedSubset([self.records[v] for v in videos], tokens, self.labels[videos])


@dataclass(frozen=True)
class TokenCache:
    """An open cache.

    Attributes:
        folder: where it lies.
        metadata: what it was made of and how; see docs/CACHE.md.
        train: the training views.
        val: the test's views in the test's order, clips x crops.
        central: one view a test video: the centre crop of the central clip, as in validation.
    """

    folder: Path
    metadata: dict
    train: CachedSubset
    val: CachedSubset
    central: CachedSubset


def cache_name(spec: ArchSpec) -> str:
    """What of a network is cached: the start of its name, alike for all heads on one backbone."""
    words = (spec.modality, BACKBONES[spec.backbone].naming.format(spec.frames), spec.reduction)
    return "_".join(word for word in (*words, NETWORKS[spec.head].encodes) if word)


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


def list_digest(records: Sequence[VideoRecord]) -> dict:
    """What was read: the place for whatever tells one state of the data from another."""
    lines = "".join(f"{r.folder} {r.count} {r.label}\n" for r in records)
    return {"videos": len(records), "list_sha256": hashlib.sha256(lines.encode()).hexdigest()}


def start_cache(folder: Path, metadata: dict) -> None:
    """Writes about.json, or raises DataError if the folder holds a cache of something else."""
    if (folder / METADATA_FILE).exists():
        earlier = read_metadata(folder)
        different = cache_differences(earlier, metadata)
        if different:
            raise DataError(
                f"{folder} holds tokens of another kind, different in {', '.join(different)}: "
                + "; ".join(f"{key} {_short(earlier.get(key))}" for key in different)
                + "; remove that folder, or name another with --cache"
            )
        return
    for subset in SUBSETS:
        (folder / subset).mkdir(parents=True, exist_ok=True)
    with written_whole(folder / METADATA_FILE, "w", shared=True) as file:
        file.write(json.dumps(metadata, indent=1))


def cache_differences(one: dict, other: dict) -> list[str]:
    """In what two caches are not of the same kind.

    It does not matter which head was named, nor where the weights lay; and of the data only what
    both tell of it.
    """
    found = [key for key in one if key not in ("arch", "weights", "fingerprint")]
    found = [key for key in found if one[key] != other.get(key)]
    if one["weights"]["sha256"] != other["weights"]["sha256"]:
        found.append("weights")
    data = (one["fingerprint"], other["fingerprint"])
    if not all(same_data(*(lists[subset] for lists in data)) for subset in SUBSETS):
        found.append("fingerprint")
    return found


def same_data(one: dict, other: dict) -> bool:
    """Whether two fingerprints agree in all that both tell."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."


def read_metadata(folder: Path) -> dict:
    """A cache's about.json; raises DataError if the folder holds none that can be read."""
    path = folder / METADATA_FILE
    if not path.is_file():
        raise DataError(
            f"no token cache {folder}: there is no {path}; make it with scripts/cache_tokens.py"
        )
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        number = metadata["format"]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error!r}; make the cache again") from None
    if number != CACHE_FORMAT:
        raise DataError(f"{path} is of format {number}, this code reads {CACHE_FORMAT}")
    return metadata


def video_path(folder: Path, subset: str, video: int) -> Path:
    return folder / subset / f"{video:05d}.npy"


def store_tokens(path: Path, tokens: np.ndarray) -> None:
    """Writes a video's tokens (views, ...) in float16, to the disk itself, whole or not at all."""
    with np.errstate(over="ignore"):
        half = tokens.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError(f"{path}: the tokens reach {np.abs(tokens).max()}, beyond float16")
    with written_whole(path) as file:
        np.save(file, half)
        file.flush()
        os.fsync(file.fileno())


def count_views(metadata: dict, subset: str, record: VideoRecord) -> tuple[int, int]:
    """How many views of a video are kept: the subset's own, and after them a central one.

    Central is what validation sees. The single-clip test begins with it, other tests lack it.
    """
    views = metadata["views"]
    if subset == "train":
        return views["train"], 0
    clips = CLIP_RULES[views["clips"]](record.count, metadata["frames"])
    return len(clips) * views["crops"], int(views["clips"] != "single")


def open_cache(folder: Path, subsets: Sequence[str] = SUBSETS) -> TokenCache:
    """Opens a cache and looks at all files of these subsets; the other subset is left empty.

    Raises DataError for what is no cache, or is not complete.
    """
    metadata = read_metadata(folder)
    empty = CachedSubset([], [], np.empty(0, np.int64))
    found = {subset: empty for subset in (*SUBSETS, "central")}
    try:
        shapes = set()
        for subset in subsets:
            records = _records(folder, metadata, subset)
            counts = [count_views(metadata, subset, record) for record in records]
            paths = [video_path(folder, subset, video) for video in range(len(records))]
            shapes |= _check_files(folder, paths, [sum(count) for count in counts])
            found[subset] = _subset(records, paths, [slice(own) for own, _ in counts])
            if subset == "val":
                central = [slice(own, own + 1) if extra else slice(1) for own, extra in counts]
                found["central"] = _subset(records, paths, central)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {folder / METADATA_FILE}: {error!r}") from None
    if len(shapes) > 1:
        raise DataError(f"{folder} holds tokens of different shapes: {sorted(shapes)}")
    return TokenCache(folder=folder, metadata=metadata, **found)


def _records(folder: Path, metadata: dict, subset: str) -> list[VideoRecord]:
    return [
        VideoRecord(
            name, int(count), int(label), f"{folder / METADATA_FILE}: {subset} video {number}"
        )
        for number, (name, count, label) in enumerate(metadata["records"][subset], 1)
    ]


def _subset(records: list[VideoRecord], paths: list[Path], rows: list[slice]) -> CachedSubset:
    labels = np.array([record.label for record in records], np.int64)
    return CachedSubset(records, VideoTokens(paths, rows), labels)


def _check_files(folder: Path, paths: Sequence[Path], views: Sequence[int]) -> set[tuple]:
    """The shapes of a view; raises DataError unless each file holds so many views of it."""
    missing = sum(not path.exists() for path in paths)
    if missing:
        raise DataError(
            f"{folder} is not complete: {missing} of {len(paths)} videos of '{paths[0].parent.name}"
            "' are missing; run scripts/cache_tokens.py again with its flags, it resumes there"
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
