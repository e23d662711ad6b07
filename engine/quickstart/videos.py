"""Which videos there are, and whether they are still those whose frames were extracted."""

import re
from collections.abc import Sequence
from pathlib import Path

from datasets.files import DataError
from datasets.prepare.collect import Video
from datasets.prepare.work import path_inside, remove_images
from engine import UsageError


def dataset_name(root: Path) -> str:
    """A dataset's name made of a folder's: small letters, digits and underscores."""
    name = re.sub(r"\W+", "_", root.resolve().name.lower(), flags=re.ASCII).strip("_")
    if not name:
        raise UsageError(f"{root} gives no name for the dataset; give one with --dataset")
    return name


def listing(root: Path, videos: Sequence[Video]) -> dict:
    """The videos with class, subset, size in bytes and time of change, as plain data.

    Raises UsageError for less than two classes.
    """
    if len({video.class_name for video in videos}) < 2:
        raise UsageError(f"{root} holds one class; a folder for each of two classes is needed")
    entries = {}
    for video in sorted(videos, key=str):
        status = (root / video.path).stat()
        times = [status.st_size, status.st_mtime_ns]
        entries[video.path] = [video.class_name, video.subset, *times]
    return {"root": str(root), "videos": entries}


def drop_changed_frames(frames: Path, earlier: dict, now: dict) -> list[str]:
    """Removes the frames of videos that have changed or gone; returns these videos' paths."""
    old, new = earlier.get("videos", {}), now["videos"]
    if earlier.get("root") != now["root"]:
        return []
    changed = [
        path
        for path, (name, _, *times) in old.items()
        if path not in new or [new[path][0], *new[path][2:]] != [name, *times]
    ]
    for path in changed:
        try:
            folder = path_inside(frames, Video(path, old[path][0]).folder)
            if folder.is_dir():
                remove_images(folder)
        except DataError as error:
            raise UsageError(f"the frames of {path}, which has changed, stay: {error}") from None
    return changed
