"""Tokens in which nothing but the order of two events tells the class."""

from pathlib import Path

import numpy as np

from datasets.records import VideoRecord
from engine.tokens.about import CACHE_FORMAT, list_digest, start_cache
from engine.tokens.arrays import store_tokens
from engine.tokens.cache import count_views, video_path

ARCH = "rgb_tiny3D16f_FRMB"  # 8 tokens of 64
LENGTH, WIDTH = 8, 64
CLASSES = ["first_then_second", "second_then_first", "third"]


def order_tokens(label: int, views: int, rng: np.random.Generator) -> np.ndarray:
    """Views (views, 8, 64) of a video: two events in one order or the other, or a third twice."""
    events = np.random.default_rng(7).normal(0, 2, (3, WIDTH))
    pair = {0: (0, 1), 1: (1, 0), 2: (2, 2)}[label]
    early, late = rng.integers(0, 3), rng.integers(5, 8)
    tokens = rng.normal(0, 0.3, (views, LENGTH, WIDTH))
    tokens[:, early] += events[pair[0]]
    tokens[:, late] += events[pair[1]]
    return tokens.astype(np.float32)


def order_cache(
    folder: Path,
    split: int = 1,
    train: int = 16,
    val: int = 8,
    sets: tuple[str, str] = ("train", "val"),
    arch: str = ARCH,
    frames: int = 20,
    **more: object,
) -> Path:
    """A whole cache of them: `train` and `val` videos a class, named by set, group and number.

    `frames`: of a video, in the list of the architecture's modality; `more`: other metadata.
    """
    rng = np.random.default_rng(split if arch == ARCH else (split, 1))
    views = {"train": 4, "seed": 0, "clips": "single", "crops": 2, "mirror": "plain"}
    records = {
        part: [
            VideoRecord(f"{CLASSES[label]}/{name}_g{number // 2}_{number}", frames, label, "")
            for number in range(size)
            for label in range(len(CLASSES))
        ]
        for part, size, name in (("train", train, sets[0]), ("val", val, sets[1]))
    }
    metadata = {
        "format": CACHE_FORMAT,
        "tokens": arch,
        "arch": arch,
        "frames": 16,
        "dataset": "order",
        "split": split,
        "class_names": CLASSES,
        "weights": {"path": None, "sha256": "0" * 64},
        "views": views,
        "flow_bound": None,
        "fingerprint": {part: list_digest(own) for part, own in records.items()},
        "records": {
            part: [[r.folder, r.count, r.label] for r in own] for part, own in records.items()
        },
    } | more
    start_cache(folder, metadata)
    for part, own in records.items():
        for number, record in enumerate(own):
            tokens = order_tokens(record.label, sum(count_views(metadata, part, record)), rng)
            store_tokens(video_path(folder, part, number), tokens)
    return folder
