"""Which frames make a clip: pure functions on integers.

Frames are numbered from 1. `count` is a video's number of frames, `length` a clip's; a video
may be cut into several segments that give a clip each. The rules are those of the reference
implementation, which thinks in `duration = count - 1`.
"""

from collections.abc import Sequence

import numpy as np


def spread(numbers: Sequence, most: int) -> list:
    """At most so many of the numbers, evenly, with the first and the last."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[place] for place in places]


def random_offsets(count: int, length: int, segments: int, rng: np.random.Generator) -> list[int]:
    """Training: a random offset for each segment."""
    duration = count - 1
    average = duration // segments
    if average >= length:
        draws = rng.integers(0, average - length, size=segments, endpoint=True)
        return [int(draw) + s * average for s, draw in enumerate(draws)]
    if duration >= length:
        step = (duration - length) // segments
        draws = rng.integers(0, step, size=segments, endpoint=True)
        return [int(draw) + s * step for s, draw in enumerate(draws)]
    increase = int(rng.integers(0, duration, endpoint=True))
    return [s * increase for s in range(segments)]


def central_offsets(count: int, length: int, segments: int = 1) -> list[int]:
    """Validation and the single-clip test: the middle of each segment."""
    duration = count - 1
    average = duration // segments
    if average >= length:
        return [int((average - length + 1) / 2 + s * average) for s in range(segments)]
    if duration >= length:
        step = (duration - length) // segments
        return [int((s * step + (s + 1) * step) / 2) for s in range(segments)]
    return [s * average for s in range(segments)]


def clip_frames(offset: int, count: int, length: int) -> np.ndarray:
    """Frame numbers (length,) from offset + 1 on; after the last frame comes the first."""
    return (np.arange(offset, offset + length)) % count + 1


def single_clip(count: int, length: int) -> list[np.ndarray]:
    """The single-clip test: one clip from the middle, frame numbers (length,)."""
    return [clip_frames(offset, count, length) for offset in central_offsets(count, length)]


def multi_clip(count: int, length: int) -> list[np.ndarray]:
    """The multi-clip test: consecutive clips over the whole video, frame numbers (length,) each.

    A video too short for one is repeated from its first frame until it fills a clip.
    """
    duration = count - 1
    starts = range(1, duration - length, length)
    if not starts:
        return [clip_frames(0, count, length)]
    shift = (duration - (starts[-1] + length)) // 2
    return [np.arange(start + 1 + shift, start + 1 + shift + length) for start in starts]


# The tests' rules, by the names that results and token caches give them.
CLIP_RULES = {"multi": multi_clip, "single": single_clip}
