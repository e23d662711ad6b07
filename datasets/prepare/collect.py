"""Which videos there are to prepare: those of class folders, or of a csv; and a machine's shard."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datasets.lists import DataError
from datasets.videos import VIDEO_SUFFIXES

Item = TypeVar("Item")


@dataclass(frozen=True)
class Video:
    """A video to prepare: its path below the root, its class, and the part a csv gives it."""

    path: str
    class_name: str
    part: str | None = None

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
        endings = " ".join(sorted(VIDEO_SUFFIXES))
        raise DataError(f"no videos in {root}/<class>/; known endings: {endings}")
    return videos


def read_csv(path: Path) -> list[Video]:
    """The videos of a csv with a header line: video[, class][, part]."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "video" not in (rows.fieldnames or []):
                raise DataError(f"{path}: the first line must name a column 'video'")
            return [_csv_video(row, f"{path}:{rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _csv_video(row: dict, where: str) -> Video:
    video = (row.get("video") or "").strip()
    class_name = (row.get("class") or "").strip() or Path(video).parent.name
    part = (row.get("part") or "").strip() or None
    if not video or not class_name:
        raise DataError(f"{where}: a video and its class are needed")
    if part not in (None, "train", "val"):
        raise DataError(f"{where}: part must be train, val or empty, not '{part}'")
    return Video(video, class_name, part)


def check_videos(root: Path, videos: list[Video]) -> None:
    """Raises DataError for a video that is not there, or two that would share a frame folder."""
    for video in videos:
        if not (root / video.path).is_file():
            raise DataError(f"no video {root / video.path}")
    for folder, number in Counter(video.folder for video in videos).items():
        if number > 1:
            same = ", ".join(video.path for video in videos if video.folder == folder)
            raise DataError(f"these would share the frame folder '{folder}', rename one: {same}")
