"""A token cache: what a frozen backbone makes of every view of a dataset, kept in files.

    <folder>/about.json        what it was made of and how
    <folder>/train/00000.npy   (views, ...): the first training video's views
    <folder>/val/00000.npy     (views, ...): the first test video's

A view's tokens are (T', D); networks whose heads start from something else keep that instead
(`VideoNet.encode`). A video's file appears whole or not at all, so a cache is complete when all
files are there, and it can be made by any number of processes, in any number of attempts.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from datasets import DataError
from datasets.records import VideoRecord
from datasets.sampling import CLIP_RULES
from engine.data import SUBSETS
from engine.tokens.about import CHECKSUM_KEY, METADATA_FILE, MOST_VIEWS, read_metadata
from engine.tokens.arrays import AGAIN, STORED, VideoTokens, map_tokens
from engine.weights.convert import hash_tensors
from models import NETWORKS, ArchSpec, VideoNet
from models.backbones import BACKBONES


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
        view_shape: of the tokens of one view, as (T', D).
        train: the training views.
        val: the test's views in the test's order, clips x crops.
        central: one view a test video: the centre crop of the central clip, as in validation.
    """

    folder: Path
    metadata: dict
    view_shape: tuple[int, ...]
    train: CachedSubset
    val: CachedSubset
    central: CachedSubset


def cache_name(spec: ArchSpec, at: str | None = None) -> str:
    """What of a network is cached: the start of its name, alike for all heads on one backbone; of
    the maps in front of the stage `at`, alike for all networks on it."""
    words = [spec.modality, BACKBONES[spec.backbone].naming.format(spec.frames)]
    words += ["at", at] if at else [spec.reduction, NETWORKS[spec.head].encodes]
    return "_".join(word for word in words if word)


def default_folder(spec: ArchSpec, dataset: str, split: int, at: str | None = None) -> str:
    """Where the cache of a split lies, seen from the repository."""
    return f"datasets/{dataset}_tokens/{cache_name(spec, at)}_split{split}"


def encoder_entries(model: VideoNet) -> dict[str, Tensor]:
    """The weights below what is cached."""
    inside = tuple(f"{name}." for name in model.encoder_parts())
    return {key: value for key, value in model.state_dict().items() if key.startswith(inside)}


def encoder_hash(model: VideoNet) -> str:
    """SHA-256 of the weights below what is cached."""
    return hash_tensors(encoder_entries(model))


def video_path(folder: Path, subset: str, video: int) -> Path:
    return folder / subset / f"{video:05d}.npy"


def count_views(metadata: dict, subset: str, record: VideoRecord) -> tuple[int, int]:
    """How many views of a video are kept: the subset's own, and after them a central one.

    Central is what validation sees. The single-clip test begins with it, other tests lack it.
    """
    views = metadata["views"]
    if subset == "train":
        return views["train"], 0
    multi = views["clips"] != "single"
    if multi and record.count // metadata["frames"] > MOST_VIEWS:
        raise DataError(f"{record.line}: {record.count} frames are more than {MOST_VIEWS} clips")
    clips = CLIP_RULES[views["clips"]](record.count, metadata["frames"])
    return len(clips) * views["crops"], int(multi)


def open_cache(folder: Path, subsets: Sequence[str] = SUBSETS) -> TokenCache:
    """Opens a cache and looks at all files of these subsets; the other subset is left empty.

    Raises DataError for what is no cache, or is not complete.
    """
    metadata = read_metadata(folder)
    empty = CachedSubset([], [], np.empty(0, np.int64))
    found = {subset: empty for subset in (*SUBSETS, "central")}
    shapes, need_checksums = set(), CHECKSUM_KEY in metadata
    for subset in subsets:
        records = [
            VideoRecord(*record, f"{folder / METADATA_FILE}: {subset} video {number}")
            for number, record in enumerate(metadata["records"].get(subset, ()), 1)
        ]
        if not records:
            raise DataError(f"{folder} holds no videos of '{subset}'; make the cache again")
        paths = [video_path(folder, subset, video) for video in range(len(records))]
        missing = sum(not os.path.lexists(path) for path in paths)
        if missing:
            raise DataError(
                f"{folder} is not complete: {missing} of {len(paths)} videos of '{subset}' are "
                "missing; run scripts/cache_tokens.py again with its flags, it resumes there"
            )
        counts = []
        for path, record in zip(paths, records, strict=True):
            counts.append(count_views(metadata, subset, record))
            shapes.add(_view_shape(path, sum(counts[-1]), metadata["numbers"]))
        labels = np.array([record.label for record in records], np.int64)
        tokens = VideoTokens(paths, [slice(own) for own, _ in counts], need_checksums)
        found[subset] = CachedSubset(records, tokens, labels)
        if subset == "val":
            rows = [slice(own, own + 1) if extra else slice(1) for own, extra in counts]
            tokens = VideoTokens(paths, rows, need_checksums, tokens.verified)
            found["central"] = CachedSubset(records, tokens, labels)
    if len(shapes) > 1:
        raise DataError(f"{folder} holds tokens of different shapes: {sorted(shapes)}")
    return TokenCache(folder, metadata, shapes.pop(), **found)


def _view_shape(path: Path, views: int, numbers: str) -> tuple[int, ...]:
    """The shape of a view; raises DataError unless the file holds so many of them, of that type."""
    tokens = map_tokens(path)
    if len(tokens) != views or tokens.dtype != STORED[numbers]:
        raise DataError(
            f"{path} holds {len(tokens)} views in {tokens.dtype}, not {views} in "
            f"{STORED[numbers]}; {AGAIN}"
        )
    return tokens.shape[1:]
