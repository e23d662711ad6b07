"""Which videos to prepare (class folders, a csv, a machine's shard), and how they are split."""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from datasets.files import DataError, check_file, check_name, normal_name, read_text
from datasets.lists import SUBSET_NAMES
from datasets.prepare.work import check_class
from datasets.records import group_of
from datasets.sources.videos import VIDEO_SUFFIXES
from datasets.specs import read_class_names

Item = TypeVar("Item")


@dataclass(frozen=True)
class Video:
    """A video to prepare: its path below the root, its class, and its subset, if it has one."""

    path: str
    class_name: str
    subset: str | None = None

    def __str__(self) -> str:
        return self.path

    @property
    def folder(self) -> str:
        """Where its frames lie below the dataset's frames."""
        return f"{self.class_name}/{Path(self.path).stem}"


@dataclass(frozen=True)
class Shard:
    """One of `count` machines' share of the work; `number` from 1."""

    number: int = 1
    count: int = 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Every `count`-th item: the shards of the same items are disjoint and miss none."""
        return list(items[self.number - 1 :: self.count])


def find_videos(root: Path) -> list[Video]:
    """The videos in the class folders of `root`, in the order of their names."""
    if not root.is_dir():
        raise DataError(f"no such folder: {root}")
    videos = [
        Video(str(path.relative_to(root)), path.parent.name)
        for path in sorted(root.glob("*/*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
    if not videos:
        loose = sum(path.suffix.lower() in VIDEO_SUFFIXES for path in root.iterdir())
        endings = " ".join(sorted(VIDEO_SUFFIXES))
        raise DataError(
            f"no videos in {root}/<class>/; "
            + (
                f"the {loose} videos in the folder itself need a folder for each class, or a csv "
                "that names their classes (--csv)"
                if loose
                else f"known endings: {endings}"
            )
        )
    return videos


def read_csv(path: Path) -> list[Video]:
    """The videos of a csv with a header line: video[, class][, part]; it is UTF-8.

    Raises DataError if it cannot be read, and for a class that cannot be a folder's name.
    """
    rows = csv.DictReader(io.StringIO(read_text(path, what="csv"), newline=""))
    try:
        if "video" not in (rows.fieldnames or []):
            raise DataError(f"{path}: the first line must name a column 'video'")
        return [_csv_video(row, f"{path}:{rows.line_num}") for row in rows]
    except csv.Error as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _csv_video(row: dict, where: str) -> Video:
    video = (row.get("video") or "").strip()
    class_name = (row.get("class") or "").strip() or Path(video).parent.name
    subset = (row.get("part") or "").strip() or None
    if not video or not class_name:
        raise DataError(f"{where}: a video and its class are needed")
    if subset not in (None, "train", "val"):
        raise DataError(f"{where}: part must be train, val or empty, not '{subset}'")
    try:
        return Video(video, check_class(class_name), subset)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def check_video(root: Path, video: Video) -> None:
    """Raises DataError for a name that cannot be a path below `root`, and for no regular file."""
    check_video_name(video)
    check_file(root / video.path, "video")


def check_video_name(video: Video) -> None:
    """Raises DataError for a path out of the videos, or a stem that is no frame folder's name."""
    check_name(normal_name(video.path), "the video", nested=True)
    check_name(Path(video.path).stem, "the video without its ending")


def check_videos(root: Path, videos: list[Video]) -> None:
    """Raises DataError for a video that is not there, or two that would share a frame folder.

    Also for a class that cannot be a folder's name. What else `check_video` refuses is no error
    here: such a video is left out.
    """
    by_folder = defaultdict(list)
    for name in {video.class_name for video in videos}:
        check_class(name)
    for video in videos:
        try:
            check_video_name(video)
        except DataError:
            continue
        if not os.path.lexists(root / video.path):
            raise DataError(f"no video {root / video.path}")
        by_folder[video.folder].append(video.path)
    for folder, paths in by_folder.items():
        if len(paths) > 1:
            same = ", ".join(paths)
            raise DataError(f"these would share the frame folder '{folder}', rename one: {same}")


@dataclass(frozen=True)
class SplitRule:
    """How videos are split where no csv says it: by shell patterns on file names, or at random."""

    train: str | None = None
    val: str | None = None
    val_share: float = 0.3
    group: re.Pattern | None = None
    seed: int = 0

    def apply(self, videos: list[Video]) -> list[Video]:
        """The videos with their subsets; those of a csv that says some keep them."""
        if any(video.subset for video in videos):
            return videos
        if bool(self.train) != bool(self.val):
            raise DataError("--train and --val go together")
        paths = [video.path for video in videos]
        if self.train:
            subsets = split_by_pattern(paths, self.train, self.val)
        else:
            subsets = split_at_random(paths, self.val_share, self.group, self.seed)
        return [replace(video, subset=subsets[video.path]) for video in videos]


def split_by_pattern(videos: Iterable[str], train: str, val: str) -> dict[str, str | None]:
    """Video path -> "train", "val" or None, by shell patterns on the file name.

    Raises DataError if a pattern matches nothing or both match the same video.
    """
    subsets: dict[str, str | None] = dict.fromkeys(videos)
    for subset, pattern in {"train": train, "val": val}.items():
        matching = [v for v in subsets if fnmatchcase(PurePosixPath(v).name, pattern)]
        if not matching:
            raise DataError(f"--{subset} '{pattern}' matches no video")
        for video in matching:
            if subsets[video]:
                raise DataError(f"'{video}' matches both --train '{train}' and --val '{val}'")
            subsets[video] = subset
    return subsets


def split_at_random(
    videos: Iterable[str], val_share: float, group: re.Pattern | None, seed: int
) -> dict[str, str | None]:
    """Video path -> "train" or "val", whole groups at a time.

    Videos whose names are of one `group` belong together, without one those that the names of
    known datasets put together (datasets/records.py); a video that no pattern matches stands alone.
    Groups are drawn until the test holds at least `val_share` of the videos.
    """
    groups = defaultdict(list)
    for video in videos:
        name = video if group else str(PurePosixPath(video).with_suffix(""))
        groups[group_of(name, group) or ("video", video)].append(video)
    if len(groups) < 2:
        by = f"--group '{group.pattern}'" if group else "by their names; --group REGEX says another"
        alone = sum(map(len, groups.values())) < 2
        why = "a single video" if alone else f"one group of videos ({by})"
        raise DataError(f"{why} cannot be split in two")
    wanted = val_share * sum(map(len, groups.values()))
    subsets: dict[str, str | None] = {}
    members = [groups[key] for key in sorted(groups)]
    for place in np.random.default_rng(seed).permutation(len(members)):
        in_val = list(subsets.values()).count("val")
        subsets |= dict.fromkeys(members[place], "val" if in_val < wanted else "train")
    if "train" not in subsets.values():
        raise DataError(f"--val-share {val_share} leaves no group for training")
    return subsets


def merge_class_names(path: Path, videos: list[Video]) -> list[str]:
    """The class names in alphabetical order, or in the order that an earlier split gave them."""
    names = sorted({video.class_name for video in videos})
    earlier = read_class_names(path)
    if earlier is None:
        return names
    if unknown := sorted(set(names) - set(earlier)):
        raise DataError(
            f"{path} lacks the classes {', '.join(unknown)}; remove it if the other splits' "
            "lists may become invalid, or use another --dataset name"
        )
    return earlier


def missing_classes(videos: list[Video]) -> list[str]:
    """A line for each subset that lacks classes, most often by a mistake in the split."""
    lines = []
    for subset in SUBSET_NAMES:
        there = {video.class_name for video in videos if video.subset == subset}
        if missing := sorted({video.class_name for video in videos} - there):
            lines.append(f"no video for {subset} of the classes {', '.join(missing)}")
    return lines
