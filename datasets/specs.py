"""The table of known datasets: for each, what its lists do not say."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import datasets.hmdb51 as hmdb51
import datasets.ucf101 as ucf101
from datasets.files import DataError, read_lines
from datasets.records import VideoRecord
from datasets.sources.folders import USUAL_NAMES, FrameNames


@dataclass(frozen=True)
class DatasetSpec:
    """What the lists do not say.

    Attributes:
        num_classes: None where the lists or a classes.txt tell.
        names: file names of the images.
        may_flip: whether a video's mirror image is one of the same class.
        complete: whether every video has its place in some list.
        published: (split, "train" or "val") -> number of videos and `list_hash` of the official
            list, where these are known.
    """

    num_classes: int | None = None
    names: FrameNames = USUAL_NAMES
    may_flip: bool = True
    complete: bool = True
    published: Mapping[tuple[int, str], tuple[int, str]] = field(default_factory=dict)


DATASETS = {
    "hmdb51": DatasetSpec(
        hmdb51.NUM_CLASSES,
        FrameNames(flow_suffixes=hmdb51.FLOW_SUFFIXES),
        complete=False,  # each official split leaves videos out
        published=hmdb51.PUBLISHED_LISTS,
    ),
    "ucf101": DatasetSpec(ucf101.NUM_CLASSES, FrameNames(flow_suffixes=ucf101.FLOW_SUFFIXES)),
    "motions": DatasetSpec(may_flip=False),  # left to right is not right to left
}


def find_spec(dataset: str) -> DatasetSpec:
    """The row of a dataset; one that the table does not hold has the usual file names."""
    return DATASETS.get(dataset, DatasetSpec())


def open_dataset(
    dataset: str, settings: Path, frames: Path
) -> tuple[DatasetSpec, list[str] | None]:
    """What is known of a dataset without its lists: its row, and its class names if they are.

    Raises DataError if the folder of its lists or that of its frames is missing.
    """
    spec, folder = find_spec(dataset), settings / dataset
    if not folder.is_dir():
        known = sorted(path.name for path in settings.glob("*") if path.is_dir())
        raise DataError(
            f"no lists for the dataset '{dataset}': there is no folder {folder} "
            f"(datasets with lists there: {', '.join(known) or 'none'})"
        )
    if not frames.is_dir():
        raise DataError(f"no frames of '{dataset}': there is no folder {frames}; give --frames")
    class_names = read_class_names(folder / "classes.txt")
    if class_names is None:
        return spec, unnamed_classes(spec.num_classes) if spec.num_classes else None
    if spec.num_classes not in (None, len(class_names)):
        raise DataError(
            f"{folder / 'classes.txt'} names {len(class_names)} classes, "
            f"'{dataset}' has {spec.num_classes}; give a selection another dataset name"
        )
    return spec, class_names


def list_hash(videos: Sequence[tuple[str, int]]) -> str:
    """SHA-256 of a list's sorted lines `folder label`, of each folder its last name alone."""
    lines = sorted(f"{PurePosixPath(folder).name} {label}\n" for folder, label in videos)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def compare_with_published(
    spec: DatasetSpec, split: int, subset: str, records: Sequence[VideoRecord]
) -> tuple[bool, str] | None:
    """Whether a list is the published one, and a line that says so; None where that is unknown."""
    if (split, subset) not in spec.published:
        return None
    number, published_hash = spec.published[split, subset]
    same = list_hash([(record.folder, record.label) for record in records]) == published_hash
    found = f"split {split} {'train' if subset == 'train' else 'test'}: {len(records):,} videos"
    if same:
        return True, f"{found}, the published list"
    if len(records) != number:
        return False, f"{found}, not the published list of {number:,}"
    return False, f"{found}, as many as in the published list, but other folders or labels"


def read_class_names(path: Path) -> list[str] | None:
    """Class names of a `classes.txt`, one a line in the order of the labels; None without one."""
    if not os.path.lexists(path):
        return None
    names = [name for _, name in read_lines(path)]
    if not names:
        raise DataError(f"{path} is empty; give one class name a line, or remove it")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} names classes twice: {', '.join(repeated)}")
    return names


def unnamed_classes(number: int) -> list[str]:
    """What classes are called where no classes.txt names them."""
    return [f"class {label}" for label in range(number)]
