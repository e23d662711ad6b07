"""Datasets: `create_dataset` reads a split's lists and checks them against what is on disk.

A dataset is a folder of lists, `<settings>/<name>/{train,val}_{rgb,flow}_split<k>.txt`, and a
folder of frame folders, packs or videos. One with the usual file names needs no code at all.
"""

from pathlib import Path

from datasets.files import DataError
from datasets.lists import find_repeated, read_list
from datasets.sources.choose import Split, choose_source
from datasets.specs import (
    DATASETS,
    compare_with_published,
    find_spec,
    open_dataset,
    unnamed_classes,
)

__all__ = ["DATASETS", "DataError", "Split", "create_dataset", "describe_published"]


def create_dataset(
    dataset: str,
    split: int,
    modality: str,
    settings: Path,
    frames: Path,
    subsets: tuple[str, ...] = ("train", "val"),
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
        subsets: the lists to use, of "train" and "val".
        size: (width, height) that will be read, to find the pack of that size.
        source: a kind of `datasets.sources.choose.SOURCE_KINDS`; None takes what is there.

    Raises DataError, naming file and line, for whatever is wrong with lists or frames. A video may
    be twice in a training list, but not in a validation list, by whose numbers results are judged.
    """
    spec, class_names = open_dataset(dataset, settings, frames)
    # lists
    lists = {}
    for subset in ("train", "val"):
        path = settings / dataset / f"{subset}_{modality}_split{split}.txt"
        if subset in subsets or (class_names is None and path.exists()):
            lists[subset] = read_list(path, class_names and len(class_names))
    for record, first in find_repeated(lists["val"]) if "val" in subsets else ():
        raise DataError(
            f"{record.line}: '{record.folder}' is listed already, in {first.line}: a test would "
            "count it twice; remove a line"
        )
    if class_names is None:
        labels = (record.label for records in lists.values() for record in records)
        class_names = unnamed_classes(1 + max(labels))
    # images
    first = lists[subsets[0]][0]
    chosen = choose_source(frames, spec.names, modality, first, size, source)
    train, val = (chosen.check(lists[s]) if s in subsets else [] for s in ("train", "val"))
    return Split(dataset, split, modality, train, val, class_names, chosen, spec.may_flip)


def describe_published(split: Split) -> list[str]:
    """For each list of a split, a line that says whether it is the published one, if known."""
    spec = find_spec(split.dataset)
    compared = (
        compare_with_published(spec, split.number, subset, getattr(split, subset))
        for subset in ("train", "val")
        if getattr(split, subset)
    )
    return [found[1] for found in compared if found]
