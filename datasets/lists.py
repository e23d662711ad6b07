"""The settings lists: lines `folder count label`, one video each."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from datasets.files import DataError, check_name, normal_name, printable, read_lines
from datasets.records import MOST_CLASSES, MOST_FRAMES, MOST_LIST, VideoRecord

SUBSET_NAMES = {"train": "training", "val": "validation"}  # the test's list is the validation's
LIST_NAME = re.compile(r"(train|val)_(rgb|flow)_split(\d+)\.txt")
LINE = re.compile(r"(.*\S)[ \t]+(\S+)[ \t]+(\S+)", re.DOTALL)
NUMBER = re.compile(r"-?[0-9]{1,15}")  # longer ones are beyond every limit
MOST_SHOWN = 100  # characters of a line in a message
MOST_FOLDER = 1024  # bytes of a folder's name, with those above it


def read_list(path: Path, num_classes: int | None = None) -> list[VideoRecord]:
    """The records of a list; folder names may hold spaces.

    Raises DataError if the list is missing, empty, or a line is malformed, has a folder outside
    the frames, a count below 1 or above MOST_FRAMES, or a label outside 0..num_classes-1.
    """
    if not path.exists():
        raise DataError(
            f"no list {path} ({lists_there(path.parent)}); make it with "
            "scripts/data/make_lists.py or prepare_videos.py"
        )
    records = [parse_line(line, where) for where, line in read_lines(path, MOST_LIST, "list")]
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


def lists_there(folder: Path) -> str:
    """The splits that a dataset's folder has lists of, in words."""
    splits = defaultdict(set)
    for path in sorted(folder.glob("*_split*.txt")):
        if match := LIST_NAME.fullmatch(path.name):
            splits[match[1], match[2]].add(int(match[3]))
    there = [
        f"{' '.join(key)} {', '.join(map(str, sorted(splits[key])))}" for key in sorted(splits)
    ]
    return f"there are the splits {'; '.join(there)}" if there else "no split has a list there"


def parse_line(line: str, where: str) -> VideoRecord:
    """The record of a stripped list line, its folder in the shortest form ("./a//b" is "a/b").

    `where` is "file:line". The label may still be none of the classes. Raises DataError for all
    else that `read_list` refuses.
    """
    parts = LINE.fullmatch(line)
    shown = f"'{printable(line[:MOST_SHOWN])}{'...' if len(line) > MOST_SHOWN else ''}'"
    if parts is None:
        raise DataError(f"{where}: expected 'folder count label', got {shown}")
    for number in parts.groups()[1:]:
        if not NUMBER.fullmatch(number):
            raise DataError(f"{where}: count and label must be whole numbers, got {shown}")
    folder = _check_folder(parts[1], where)
    count, label = int(parts[2]), int(parts[3])
    if not 1 <= count <= MOST_FRAMES:
        bound = "at least 1" if count < 1 else f"at most {MOST_FRAMES:,}"
        raise DataError(f"{where}: the count of '{folder}' must be {bound}, not {count}")
    if label >= MOST_CLASSES:
        raise DataError(
            f"{where}: the label of '{folder}' must be below {MOST_CLASSES:,}, not {label}"
        )
    return VideoRecord(folder, count, label, where)


def _check_folder(folder: str, where: str) -> str:
    """A line's folder in its shortest form; raises DataError if it cannot be one."""
    if folder.startswith("/") or ".." in PurePosixPath(folder).parts:
        raise DataError(
            f"{where}: the folder '{printable(folder)}' lies outside the dataset's frames"
        )
    folder = check_name(normal_name(folder), f"{where}: the folder", nested=True)
    if len(folder.encode()) > MOST_FOLDER:
        raise DataError(f"{where}: the folder's name is longer than {MOST_FOLDER} bytes; rename it")
    return folder


def find_repeated(records: Sequence[VideoRecord]) -> Iterator[tuple[VideoRecord, VideoRecord]]:
    """(record, the first one of the same folder) of the videos that a list names again."""
    seen: dict[str, VideoRecord] = {}
    for record in records:
        first = seen.setdefault(record.folder, record)
        if first is not record:
            yield record, first
