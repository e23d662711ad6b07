"""Checks of the lists: labels, both modalities, both sides of a split, published lists."""

import re
from collections import defaultdict
from collections.abc import Iterator

from datasets.doctor.dataset import CheckedDataset
from datasets.doctor.findings import Finding
from datasets.lists import SUBSET_NAMES, find_repeated
from datasets.records import VideoRecord, group_of
from datasets.specs import compare_with_published

MOST_UNUSED = 1000  # classes; more are one finding


def check_subsets(dataset: CheckedDataset) -> Iterator[Finding]:
    """A split needs a training and a test list, and both modalities the same videos."""
    there = {(entry.split, entry.modality, entry.subset): entry for entry in dataset.lists}
    prepare = dataset.fixes.prepare
    for split, modality in sorted({key[:2] for key in there}):
        for subset in SUBSET_NAMES:
            if (split, modality, subset) not in there:
                path = dataset.lists[0].path.with_name(f"{subset}_{modality}_split{split}.txt")
                yield Finding("error", "no-list", "", f"no list {path}", prepare)
    for (split, modality, subset), entry in there.items():
        other = there.get((split, "flow" if modality == "rgb" else "rgb", subset))
        known = other.videos if other else entry.videos
        for record in entry.records:
            if record.folder not in known:
                message = (
                    f"{record.line}: '{record.folder}' is not in {other.path.name}; "
                    "two streams are fused over the same videos"
                )
                yield Finding("warning", "one-modality", record.folder, message, prepare)


def check_content(dataset: CheckedDataset) -> Iterator[Finding]:
    """Bad lines, lists without any video, and those that should be the published ones."""
    for entry in dataset.lists:
        yield from entry.bad
        compared = compare_with_published(dataset.spec, entry.split, entry.subset, entry.records)
        if compared is not None:
            same, line = compared
            fix = "" if same else "make the lists with scripts/data/make_lists.py"
            severity = "info" if same else "warning"
            yield Finding(severity, "published-list", "", f"{entry.path.name}: {line}", fix)


def check_labels(dataset: CheckedDataset) -> Iterator[Finding]:
    """Labels outside the classes, classes without videos, videos with two labels."""
    names = dataset.class_names
    labels: dict[str, VideoRecord] = {}
    for entry in dataset.lists:
        for record in entry.records:
            if not 0 <= record.label < len(names):
                message = f"the label must be 0..{len(names) - 1}, not {record.label}"
                yield _label_finding("label-range", record, message)
                continue
            first = labels.setdefault(record.folder, record)
            if first.label != record.label:
                message = f"labelled {record.label}, but {first.label} in {first.line}"
                yield _label_finding("two-labels", record, message)
        used = {record.label for record in entry.records}
        unused = sorted(set(range(len(names))) - used) if entry.records else []
        missing = [f"class {label} ('{names[label]}')" for label in unused[:MOST_UNUSED]]
        if len(unused) > MOST_UNUSED:
            missing = [f"{len(unused):,} of the {len(names):,} classes"]
        for what in missing:
            message = f"{entry.path.name} has no video of {what}"
            fix = "correct the labels, classes.txt, or how the videos are split"
            yield Finding("warning", "label-unused", "", message, fix)


def _label_finding(kind: str, record: VideoRecord, message: str) -> Finding:
    file, _, number = record.line.rpartition(":")
    fix = f"correct the label in line {number} of {file}"
    message = f"{record.line}: '{record.folder}': {message}"
    return Finding("error", kind, record.folder, message, fix)


def check_overlap(dataset: CheckedDataset) -> Iterator[Finding]:
    """Videos that are listed twice, or on both sides of a split."""
    drop_line = dataset.fixes.drop_line
    sides: dict[tuple[int, str], dict[str, list[VideoRecord]]] = {}
    for entry in dataset.lists:
        side = sides.setdefault((entry.split, entry.subset), defaultdict(list))
        for record in entry.records:
            side[record.folder].append(record)
        severity = "error" if entry.subset == "val" else "warning"  # a test refuses it
        for record, first in find_repeated(entry.records):
            message = f"{record.line}: '{record.folder}' is listed already, in {first.line}"
            yield Finding(severity, "listed-twice", record.folder, message, drop_line(record))
    for split in sorted({split for split, _ in sides}):
        train, val = (sides.get((split, subset), {}) for subset in SUBSET_NAMES)
        for folder in sorted(train.keys() & val.keys()):
            places = f"{train[folder][0].line} and {val[folder][0].line}"
            message = f"'{folder}' trains and tests in split {split}: {places}"
            fix = " && ".join(map(drop_line, train[folder]))
            yield Finding("error", "train-and-test", folder, message, fix)


LIST_CHECKS = (check_subsets, check_content, check_labels, check_overlap)


def check_groups(dataset: CheckedDataset, group: re.Pattern | None) -> Iterator[Finding]:
    """Groups on both sides of a split; the findings name the videos of the smaller side.

    `group` is what in a video's name tells its group, instead of the known patterns.
    """
    groups: dict[tuple, dict[str, dict[str, None]]] = {}
    for entry in dataset.lists:
        for record in entry.records:
            found = group_of(record.folder, group)
            if found is not None:
                sides = groups.setdefault((entry.split, *found), {"train": {}, "val": {}})
                sides[entry.subset][record.folder] = None
    for (split, what, severity, name), sides in groups.items():
        # A video on both sides is another finding.
        train = [video for video in sides["train"] if video not in sides["val"]]
        val = [video for video in sides["val"] if video not in sides["train"]]
        few, many, subset = (train, val, "train") if len(train) < len(val) else (val, train, "val")
        for video in few if many else ():
            message = (
                f"'{video}' is a {SUBSET_NAMES[subset]} video of split {split}, and '{many[0]}' "
                f"of the same {what} '{name}' is on the other side"
            )
            fix = (
                "split whole groups: prepare_videos.py --group REGEX, or --train and --val with "
                "patterns that keep them together"
            )
            yield Finding(severity, "group-split", video, message, fix)
