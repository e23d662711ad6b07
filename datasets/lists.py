"""The settings lists: lines `folder count label`, one video each."""

from pathlib import Path, PurePosixPath

from datasets.files import DataError, read_lines
from datasets.records import VideoRecord

SUBSET_NAMES = {"train": "training", "val": "validation"}  # the test's list is the validation's


def read_list(path: Path, num_classes: int | None = None) -> list[VideoRecord]:
    """The records of a list; folder names may hold spaces.

    Raises DataError if the list is missing, empty, or a line is malformed, has a folder outside
    the frames, a count below 1, or a label outside 0..num_classes-1.
    """
    if not path.exists():
        raise DataError(
            f"no list {path}; make it with scripts/data/make_lists.py or prepare_videos.py"
        )
    records = [parse_line(line, where) for where, line in read_lines(path)]
    if not records:
        raise DataError(f"the list {path} is empty")
    for record in records:
        if record.label < 0 or (num_classes is not None and record.label >= num_classes):
            allowed = "0 or more" if num_classes is None else f"0..{num_classes - 1}"
            raise DataError(
                f"{record.line}: the label of '{record.folder}' must be {allowed}, "
                f"not {record.label}"
            )
    return records


def parse_line(line: str, where: str) -> VideoRecord:
    """The record of a stripped list line; its label may still be none of the classes.

    `where` is "file:line". Raises DataError for all else that `read_list` refuses.
    """
    parts = line.rsplit(maxsplit=2)
    if len(parts) != 3:
        raise DataError(f"{where}: expected 'folder count label', got '{line}'")
    folder = parts[0]
    try:
        count, label = int(parts[1]), int(parts[2])
    except ValueError:
        raise DataError(f"{where}: count and label must be whole numbers, got '{line}'") from None
    if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
        raise DataError(f"{where}: the folder '{folder}' lies outside the dataset's frames")
    if count < 1:
        raise DataError(f"{where}: the count of '{folder}' must be at least 1, not {count}")
    return VideoRecord(folder, count, label, where)
