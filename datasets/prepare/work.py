"""The folders that a preparation writes and removes: below its frames, and never through a link."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from datasets.files import DataError, check_name, said_plainly
from datasets.preparation import RECORD_FILE, UNFINISHED
from datasets.sources.folders import MODALITIES, USUAL_NAMES, FrameNames

RESERVED = (RECORD_FILE, UNFINISHED)  # what lies beside the class folders


def check_class(name: str) -> str:
    """The name of a class, as a folder beside the record; raises DataError if it cannot be one."""
    if check_name(name, "the class").casefold() in RESERVED:
        raise DataError(f"the class '{name}': the preparation keeps that name; rename it")
    return name


def path_inside(root: Path, folder: str) -> Path:
    """`root/folder`; raises DataError if the name leads out of `root`, or a part of it is a link.

    `root` itself may be reached by links.
    """
    path = root
    for part in PurePosixPath(check_name(folder, "the frame folder", nested=True)).parts:
        path /= part
        if path.is_symlink():
            raise DataError(f"{path} is a link: nothing is written or removed there; remove it")
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is no folder; remove it")
    return path


@contextmanager
def work_folder(root: Path, folder: str) -> Iterator[Path]:
    """An empty hidden folder to write a video's images in; removed at the end.

    Raises DataError if that place is not the preparation's own, OSError as `said_plainly` does.
    """
    work = path_inside(root, f"{UNFINISHED}/{folder}")
    if work.exists():  # of an interrupted run
        remove_images(work)
    with said_plainly(root / folder):
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            with suppress(DataError, FileNotFoundError):  # it may bear its final name now
                remove_images(work)


def check_replaceable(root: Path, folder: str) -> Path:
    """`root/folder`, which a new video folder may replace if it is there.

    Raises DataError if `path_inside` does, if no preparation is recorded in `root`, or if the
    folder holds anything but images named as a preparation names them.
    """
    target = path_inside(root, folder)
    if target.exists():
        if not (root / RECORD_FILE).is_file():
            raise DataError(f"{target} is there, and no {RECORD_FILE} in {root}; move it away")
        _check_images(target)
    return target


def remove_images(folder: Path) -> None:
    """Removes a folder of images; raises DataError, and removes nothing, if it holds others."""
    for name in _check_images(folder):
        (folder / name).unlink()
    folder.rmdir()


def _check_images(folder: Path) -> list[str]:
    """The names of the images in a folder that holds nothing else."""
    known = _image_names(*MODALITIES)
    with os.scandir(folder) as entries:
        images = {e.name: e.is_file(follow_symlinks=False) for e in entries}
    other = sorted(name for name, is_file in images.items() if not (is_file and known(name)))
    if other:
        raise DataError(f"{folder} holds '{other[0]}', which no preparation makes; move it away")
    return list(images)


def _image_names(*modalities: str, names: FrameNames = USUAL_NAMES):
    """Whether a file name is an image's of one of the modalities, with a number in it."""
    patterns = (pattern for modality in modalities for pattern in names.patterns(modality))
    beginnings = "|".join(re.escape(pattern.split("{")[0]) for pattern in patterns)
    return re.compile(rf"(?:{beginnings})\d+(?:\.\w+)?").fullmatch


def remove_flow(folder: Path, names: FrameNames) -> None:
    """Removes the flow images in a frame folder; DataError, and all stays, if one is a folder."""
    known = _image_names("flow", names=names)
    with os.scandir(folder) as entries:
        images = {e.name: e.is_dir(follow_symlinks=False) for e in entries if known(e.name)}
    for name, is_folder in images.items():
        if is_folder:
            raise DataError(f"{folder / name} is a folder, not an image; move it away")
    for name in images:
        (folder / name).unlink()


def remove_unfinished(root: Path) -> None:
    """Removes what interrupted runs left of images in their hidden folder; other files stay."""
    known = _image_names(*MODALITIES)
    if (root / UNFINISHED).is_symlink():
        return
    for folder, _, files in os.walk(root / UNFINISHED, topdown=False):  # it follows no links
        with suppress(OSError):
            for name in filter(known, files):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)
