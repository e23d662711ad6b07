"""Which videos train and which test: by a pattern, or at random by group."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import numpy as np

from datasets.grouping import group_of
from datasets.lists import DataError


def split_by_pattern(videos: Iterable[str], train: str, val: str) -> dict[str, str | None]:
    """Video path -> "train", "val" or None, by shell patterns on the file name.

    Raises DataError if a pattern matches nothing or both match the same video.
    """
    parts: dict[str, str | None] = {}
    for video in videos:
        name = PurePosixPath(video).name
        matching = [p for p, glob in (("train", train), ("val", val)) if fnmatchcase(name, glob)]
        if len(matching) == 2:
            raise DataError(f"'{video}' matches both --train '{train}' and --val '{val}'")
        parts[video] = matching[0] if matching else None
    for part, glob in (("train", train), ("val", val)):
        if part not in parts.values():
            raise DataError(f"--{part} '{glob}' matches no video")
    return parts


def split_at_random(
    videos: Iterable[str], val_share: float, group: re.Pattern | None, seed: int
) -> dict[str, str | None]:
    """Video path -> "train" or "val", whole groups at a time.

    Videos whose names are of one `group` (datasets/grouping.py) belong together, one that the
    pattern does not match stands alone. Groups are drawn until the test holds at least `val_share`
    of the videos.
    """
    groups: dict[tuple, list[str]] = {}
    for video in videos:
        found = group_of(video, group) if group else None
        groups.setdefault(found or ("video", video), []).append(video)
    if len(groups) < 2:
        why = f"one group of videos (--group '{group.pattern}')" if group else "a single video"
        raise DataError(f"{why} cannot be split in two")
    wanted = val_share * sum(map(len, groups.values()))
    parts: dict[str, str | None] = {}
    keys = sorted(groups)
    for place in np.random.default_rng(seed).permutation(len(keys)):
        in_val = sum(part == "val" for part in parts.values())
        part = "val" if in_val < wanted else "train"
        parts |= dict.fromkeys(groups[keys[place]], part)
    if "train" not in parts.values():
        raise DataError(f"--val-share {val_share} leaves no group for training")
    return parts
