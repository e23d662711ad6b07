"""The clips an exported network is checked on: of its test list where that is, else made ones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from datasets import DataError
from datasets.sampling import single_clip, spread
from datasets.sources.videos import read_frames
from engine import UsageError
from engine.config import DataConfig
from engine.data import open_split
from engine.weights.load import read_state_dict
from models import ArchSpec

CHECKED = 3  # videos


def clips_to_check(
    path: Path, spec: ArchSpec, data: DataConfig, size: tuple[int, int]
) -> tuple[np.ndarray, str]:
    """uint8 clips (N, T, H, W, C) of (width, height) `size`, and what they are, for people.

    They are the central clips of some videos of the test list that a checkpoint names, if lists
    and images are where `data` says.
    """
    content = read_state_dict(path)[1]
    if "dataset" in content:
        data = replace(data, dataset=content["dataset"], split=content.get("split", 1))
        try:
            split = open_split(data, spec, ("val",))
            reader = split.source.reader(size)
            records = spread(split.val, CHECKED)
            clips = [reader.read(r, single_clip(r.count, spec.frames)[0]) for r in records]
            return np.stack(clips), f"{len(clips)} test videos of {data.dataset}"
        except DataError as error:
            reason = f"the test videos of {data.dataset} cannot be read: {error}"
    else:
        reason = "the file names no dataset"
    return made_clips(spec, size), f"{CHECKED} made clips ({reason})"


def video_clips(paths: Sequence[Path], spec: ArchSpec, size: tuple[int, int]) -> np.ndarray:
    """The central clip of each video, uint8 (videos, T, H, W, 3), of (width, height) `size`.

    Raises UsageError for a network that sees flow, DataError for a video that cannot be read.
    """
    if spec.modality != "rgb":
        raise UsageError(f"--video is for networks that see RGB; {spec.name} sees optical flow")
    clips = []
    for path in paths:
        count = sum(1 for _ in _frames(path, (16, 16)))
        numbers = single_clip(count, spec.frames)[0]
        wanted = set(numbers.tolist())
        kept = {n: f for n, f in enumerate(_frames(path, size), 1) if n in wanted}
        clips.append(np.stack([kept[n] for n in numbers.tolist()])[..., ::-1])
    return np.stack(clips)


def _frames(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    try:
        yield from read_frames(path, size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def made_clips(spec: ArchSpec, size: tuple[int, int], clips: int = CHECKED) -> np.ndarray:
    """Random textures that move, each another way, uint8 (clips, T, H, W, C)."""
    rng = np.random.default_rng(0)
    width, height = size
    found = np.empty((clips, spec.frames, height, width, spec.input.channels), np.uint8)
    for clip, (dy, dx) in zip(found, rng.integers(-4, 5, (clips, 2)).tolist(), strict=True):
        coarse = rng.integers(0, 256, (8, 10, spec.input.channels), dtype=np.uint8)
        texture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        for step, frame in enumerate(clip):
            frame[...] = np.roll(texture, (step * dy, step * dx), (0, 1))
    return found
