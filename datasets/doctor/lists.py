"""The lists themselves: their lines, their labels, and who is on both sides of a split."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.doctor.findings import Finding, Mender
from datasets.lists import DataError, VideoRecord, parse_line

LIST_NAME = re.compile(r"(train|val)_(rgb|flow)_split(\d+)\.txt")
PART_NAMES = {"train": "training", "val": "test"}


@dataclass(frozen=True)
class VideoList:
    """One list: the videos of a part of a split, in one modality; `bad`: what cannot be read."""

    path: Path
    part: str
    modality: str
    split: int
    records: tuple[VideoRecord, ...]
    bad: tuple[Finding, ...] = ()

    @property
    def videos(self) -> set[str]:
        """All that it names, also in bad lines."""
        return {record.folder for record in self.records} | {entry.video for entry in self.bad}


def read_lists(folder: Path, split: int | None, modalities: Sequence[str]) -> list[VideoList]:
    """The lists of a split (None: of all).

    Raises DataError if there is no list at all.
    """
    lists = []
    for path in sorted(folder.iterdir()):
        match = LIST_NAME.fullmatch(path.name)
        if match is None or match[2] not in modalities or split not in (None, int(match[3])):
            continue
        records, bad = _read(path)
        lists.append(VideoList(path, match[1], match[2], int(match[3]), tuple(records), tuple(bad)))
    if not lists:
        wanted = "*" if split is None else split
        raise DataError(
            f"no list {folder}/{{train,val}}_{{{','.join(modalities)}}}_split{wanted}.txt; make it "
            "with scripts/data/make_lists.py or prepare_videos.py"
        )
    return lists


def _read(path: Path) -> tuple[list[VideoRecord], list[Finding]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from None
    records, findings = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                records.append(parse_line(line, f"{path}:{number}"))
            except DataError as error:
                video = line.strip().rsplit(maxsplit=2)[0]
                findings.append(
                    Finding("error", "bad-line", video, str(error), f"correct line {number}")
                )
    if not records:
        findings.append(Finding("error", "no-videos", "", f"the list {path} has no videos"))
    return records, findings


def check_parts(lists: Sequence[VideoList], mender: Mender) -> Iterator[Finding]:
    """A split needs a training and a test list, and both modalities the same videos."""
    there = {(entry.split, entry.modality, entry.part): entry for entry in lists}
    for split, modality in sorted({key[:2] for key in there}):
        for part in PART_NAMES:
            if (split, modality, part) not in there:
                name = f"{part}_{modality}_split{split}.txt"
                folder = lists[0].path.parent
                yield Finding("error", "no-list", "", f"no list {folder / name}", mender.prepare)
    for (split, modality, part), entry in there.items():
        other = there.get((split, "flow" if modality == "rgb" else "rgb", part))
        if other is None:
            continue
        known = other.videos
        for record in entry.records:
            if record.folder not in known:
                yield Finding(
                    "warning",
                    "one-modality",
                    record.folder,
                    f"{record.line}: '{record.folder}' is not in {other.path.name}; "
                    "two streams are fused over the same videos",
                    mender.prepare,
                )


def check_labels(lists: Sequence[VideoList], classes: Sequence[str] | int) -> Iterator[Finding]:
    """Labels outside the classes, classes without videos, videos with two labels."""
    names = [f"class {n}" for n in range(classes)] if isinstance(classes, int) else classes
    number = len(names)
    labels: dict[str, VideoRecord] = {}
    for entry in lists:
        for record in entry.records:
            if not 0 <= record.label < number:
                message = f"the label must be 0..{number - 1}, not {record.label}"
                yield _line_finding("label-range", record, message)
                continue
            first = labels.setdefault(record.folder, record)
            if first.label != record.label:
                message = f"labelled {record.label}, but {first.label} in {first.line}"
                yield _line_finding("two-labels", record, message)
        used = {record.label for record in entry.records}
        for label in sorted(set(range(number)) - used) if entry.records else ():
            yield Finding(
                "warning",
                "label-unused",
                "",
                f"{entry.path.name} has no video of class {label} ('{names[label]}')",
                "correct the labels, classes.txt, or how the videos are split",
            )


def _line_finding(kind: str, record: VideoRecord, message: str) -> Finding:
    file, _, number = record.line.rpartition(":")
    mend = f"correct the label in line {number} of {file}"
    return Finding(
        "error", kind, record.folder, f"{record.line}: '{record.folder}': {message}", mend
    )


def check_overlap(lists: Iterable[VideoList], mender: Mender) -> Iterator[Finding]:
    """Videos that are listed twice, or on both sides of a split."""
    sides: dict[tuple[int, str], dict[str, list[VideoRecord]]] = {}
    for entry in lists:
        side = sides.setdefault((entry.split, entry.part), defaultdict(list))
        seen: dict[str, VideoRecord] = {}
        for record in entry.records:
            if record.folder in seen:
                first = seen[record.folder].line
                message = f"{record.line}: '{record.folder}' is listed already, in {first}"
                mend = mender.drop_line(record)
                yield Finding("warning", "listed-twice", record.folder, message, mend)
            else:
                seen[record.folder] = record
                side[record.folder].append(record)
    for split in sorted({split for split, _ in sides}):
        train, val = (sides.get((split, part), {}) for part in PART_NAMES)
        for folder in sorted(train.keys() & val.keys()):
            places = f"{train[folder][0].line} and {val[folder][0].line}"
            yield Finding(
                "error",
                "train-and-test",
                folder,
                f"'{folder}' trains and tests in split {split}: {places}",
                " && ".join(mender.drop_line(record) for record in train[folder]),
            )
