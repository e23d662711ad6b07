"""The dataset doctor: lists against disk, images, flow, leaks between training and test.

`check_lists` needs names alone and runs before each training; `examine` also opens images, a few
of each video or, deep, all. Checks are functions that yield findings.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from datasets import DatasetSpec, open_dataset
from datasets.doctor.counts import (
    check_counts,
    check_folders,
    check_links,
    check_unlisted,
)
from datasets.doctor.duplicates import check_duplicates, thumbnail
from datasets.doctor.findings import Finding, Mender, ordered
from datasets.doctor.folders import Folder, Surveyor, find_unlisted
from datasets.doctor.groups import check_groups
from datasets.doctor.images import check_quality, check_sizes
from datasets.doctor.lists import VideoList, check_labels, check_overlap, check_parts, read_lists
from datasets.doctor.look import Job, Look, look_at, read_grey
from datasets.prepare.extract import read_preparation

__all__ = ["Case", "Finding", "check_lists", "examine", "open_case"]

MODALITIES = ("rgb", "flow")
LISTERS = 8  # threads: network disks take their time to answer
Progress = Callable[[Iterable[Look], int], Iterable[Look]]


@dataclass(frozen=True)
class Case:
    """A dataset to be checked.

    Attributes:
        spec, classes: its row, and its class names or their number.
        lists: those that are checked.
        folders: what lies in each listed frame folder, None if it is missing.
        modalities: those that are checked.
    """

    spec: DatasetSpec
    classes: Sequence[str] | int
    lists: list[VideoList]
    folders: dict[str, Folder | None]
    modalities: tuple[str, ...]
    mender: Mender


def open_case(
    dataset: str,
    settings: Path,
    frames: Path,
    split: int | None = None,
    modalities: tuple[str, ...] = MODALITIES,
) -> Case:
    """Reads the lists of a split (None: of all) and lists their frame folders.

    Raises DataError if there are no lists or no frames to look at.
    """
    spec, class_names, number = open_dataset(dataset, settings, frames)
    lists = read_lists(settings / dataset, split, modalities)
    records = [record for entry in lists for record in entry.records]
    if number is None:
        number = 1 + max((record.label for record in records), default=0)
    surveyor = Surveyor(spec.names)
    videos = list(dict.fromkeys(record.folder for record in records))
    with ThreadPoolExecutor(LISTERS) as pool:
        looks = pool.map(lambda video: surveyor.look(frames / video), videos)
        folders = dict(zip(videos, looks, strict=True))
    mender = Mender(dataset, settings, frames)
    return Case(spec, class_names or number, lists, folders, modalities, mender)


def check_lists(case: Case, group: re.Pattern | None = None) -> list[Finding]:
    """The quick part: the lists, and the names of the files that they need."""
    findings = [finding for entry in case.lists for finding in entry.bad]
    findings += check_parts(case.lists, case.mender)
    findings += check_labels(case.lists, case.classes)
    findings += check_overlap(case.lists, case.mender)
    findings += check_groups(case.lists, group)
    findings += check_links(case.folders, case.mender.frames)
    findings += check_folders(case.folders, case.modalities, case.mender)
    for entry in case.lists:
        findings += check_counts(entry, case.folders, case.mender)
    return ordered(findings)


def examine(
    case: Case,
    deep: bool,
    workers: int,
    progress: Progress,
    group: re.Pattern | None = None,
) -> list[Finding]:
    """Everything: the quick part, folders without lists, images, flow, duplicates.

    Args:
        deep: look at all images, not at a few of each video, and compare flow with frames.
        workers: processes.
        progress: wraps the videos' looks, of which it is told the number.
        group: what in a video's name tells its group, instead of the known patterns.
    """
    frames = case.mender.frames
    findings = check_lists(case, group)
    every = read_lists(case.lists[0].path.parent, None, MODALITIES)
    named = set().union(*(entry.videos for entry in every))
    unlisted = find_unlisted(frames, named, Surveyor(case.spec.names))
    findings += check_unlisted(unlisted, case.spec.complete, case.mender)
    looks = _look_at_all(case, deep, workers, progress)
    preparation = read_preparation(frames)
    for modality in case.modalities:
        sizes = {look.video: look.sizes.get(modality, []) for look in looks}
        findings += check_sizes(sizes, modality, preparation, case.mender)
        qualities = {look.video: look.qualities.get(modality) for look in looks}
        qualities = {video: quality for video, quality in qualities.items() if quality}
        # Frames of unrecorded size were there before the preparation, which added the flow.
        known = preparation and (modality == "flow" or preparation.width)
        findings += check_quality(qualities, modality, preparation if known else None, case.mender)
    for look in looks:
        findings += look.findings
    hashes = {look.video: look.hashes for look in looks}
    findings += check_duplicates(hashes, case.lists, case.folders, _thumbnails(case))
    return ordered(findings)


def _thumbnails(case: Case) -> Callable[[str, int], np.ndarray]:
    @cache  # where a scene has many clips, each is compared many times
    def read(video: str, number: int) -> np.ndarray:
        return thumbnail(read_grey(case.mender.frames, case.spec.names, video, number))

    return read


def _look_at_all(case: Case, deep: bool, workers: int, progress: Progress) -> list[Look]:
    """The looks at all listed videos that have a folder, in a process pool."""
    preparation = read_preparation(case.mender.frames)
    jobs = [
        Job(video, folder, case.modalities, case.spec.names, preparation, case.mender, deep)
        for video, folder in case.folders.items()
        if folder is not None
    ]
    if not jobs:
        return []
    with ProcessPoolExecutor(min(workers, len(jobs))) as pool:
        try:
            return list(progress(pool.map(look_at, jobs, chunksize=4), len(jobs)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
