"""Datasets: `create_dataset` reads a split's lists and checks them against what is on disk.

A dataset is a folder of lists, `<settings>/<name>/{train,val}_{rgb,flow}_split<k>.txt`, and a
folder of frame folders, packs or videos. One with the usual file names needs no code at all.
"""

from dataclasses import dataclass, field
from pathlib import Path

from datasets import hmdb51, ucf101
from datasets.lists import DataError, VideoRecord, read_class_names, read_list
from datasets.sources.choose import Source, choose_source
from datasets.sources.frames import FrameNames

__all__ = ["DATASETS", "DataError", "DatasetSpec", "Split", "create_dataset", "unnamed_classes"]


@dataclass(frozen=True)
class DatasetSpec:
    """What the lists do not say.

    Attributes:
        num_classes: None where the lists or a classes.txt tell.
        names: file names of the images.
        may_flip: whether a video's mirror image is one of the same class.
        complete: whether every video has its place in some list.
    """

    num_classes: int | None = None
    names: FrameNames = field(default_factory=FrameNames)
    may_flip: bool = True
    complete: bool = True


DATASETS = {
    # Each official split leaves videos out.
    "hmdb51": DatasetSpec(hmdb51.NUM_CLASSES, hmdb51.NAMES, complete=False),
    "ucf101": DatasetSpec(ucf101.NUM_CLASSES, ucf101.NAMES),
    "motions": DatasetSpec(may_flip=False),  # left to right is not right to left
}


@dataclass(frozen=True)
class Split:
    """One modality of one split of a dataset, checked against the disk.

    Attributes:
        dataset, number, modality: which.
        train, val: the records; `train` is empty where only the test's list was asked for.
        class_names: one for each label.
        frames: folder of the frame folders, packs or videos.
        names: file names of the images in frame folders.
        source: which of these the images come from.
        may_flip: whether a video's mirror image is one of the same class.
    """

    dataset: str
    number: int
    modality: str
    train: list[VideoRecord]
    val: list[VideoRecord]
    class_names: list[str]
    frames: Path
    names: FrameNames
    source: Source
    may_flip: bool


def create_dataset(
    dataset: str,
    split: int,
    modality: str,
    settings: Path,
    frames: Path,
    parts: tuple[str, ...] = ("train", "val"),
    size: tuple[int, int] | None = None,
    source: str | None = None,
) -> Split:
    """Reads and checks the lists of a split.

    Args:
        dataset: its name: a key of DATASETS, or any other with lists and frames.
        split: its number, from 1.
        modality: "rgb" or "flow".
        settings: folder of all datasets' lists.
        frames: folder of this dataset's frame folders, packs or videos.
        parts: the lists to use, of "train" and "val".
        size: (width, height) that will be read, to find the pack of that size.
        source: a kind of `datasets.sources.choose.SOURCES`; None takes what is there.

    Raises DataError, naming file and line, for whatever is wrong with lists or frames.
    """
    spec, class_names, num_classes = open_dataset(dataset, settings, frames)
    folder = settings / dataset
    lists = {}
    for part in ("train", "val"):
        path = folder / f"{part}_{modality}_split{split}.txt"
        if part in parts or (num_classes is None and path.exists()):
            lists[part] = read_list(path, num_classes)
    if num_classes is None:
        num_classes = 1 + max(record.label for records in lists.values() for record in records)
    first = lists[parts[0]][0]
    chosen = choose_source(frames, spec.names, modality, first, size, source)
    checked = {part: chosen.check(lists[part]) for part in parts}
    return Split(
        dataset=dataset,
        number=split,
        modality=modality,
        train=checked.get("train", []),
        val=checked.get("val", []),
        class_names=class_names or unnamed_classes(num_classes),
        frames=frames,
        names=spec.names,
        source=chosen,
        may_flip=spec.may_flip,
    )


def open_dataset(
    dataset: str, settings: Path, frames: Path
) -> tuple[DatasetSpec, list[str] | None, int | None]:
    """What is known of a dataset without its lists: its row, class names and number of classes.

    Raises DataError if the folder of its lists or that of its frames is missing.
    """
    spec = DATASETS.get(dataset, DatasetSpec())
    folder = settings / dataset
    if not folder.is_dir():
        known = sorted(path.name for path in settings.glob("*") if path.is_dir())
        raise DataError(
            f"no lists for the dataset '{dataset}': there is no folder {folder} "
            f"(datasets with lists there: {', '.join(known) or 'none'})"
        )
    if not frames.is_dir():
        raise DataError(f"no frames of '{dataset}': there is no folder {frames}; give --frames")
    class_names = read_class_names(folder / "classes.txt")
    return spec, class_names, _num_classes(spec, class_names, folder)


def unnamed_classes(number: int) -> list[str]:
    """What classes are called where no classes.txt names them."""
    return [f"class {label}" for label in range(number)]


def _num_classes(spec: DatasetSpec, class_names: list[str] | None, folder: Path) -> int | None:
    if class_names is None:
        return spec.num_classes
    if spec.num_classes not in (None, len(class_names)):
        raise DataError(
            f"{folder / 'classes.txt'} names {len(class_names)} classes, "
            f"'{folder.name}' has {spec.num_classes}; give a subset another dataset name"
        )
    return len(class_names)
