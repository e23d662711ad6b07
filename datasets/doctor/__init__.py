"""The dataset doctor: lists against disk, images, flow, leaks between training and test.

`check_lists` needs names alone and runs before each training; `examine` also opens images, a few
of each video or, deep, all. Checks are functions that yield findings.
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np

from datasets.doctor.counts import check_counts, check_folders, check_links, check_unlisted
from datasets.doctor.dataset import CheckedDataset, open_checked
from datasets.doctor.duplicates import check_duplicates, thumbnail
from datasets.doctor.findings import Finding, ordered
from datasets.doctor.images import ImageChecks, VideoReport, read_grey
from datasets.doctor.lists import (
    check_groups,
    check_labels,
    check_lines,
    check_overlap,
    check_published,
    check_subsets,
)
from datasets.preparation import read_preparation

__all__ = ["CheckedDataset", "Finding", "check_lists", "examine", "open_checked"]

QUICK_CHECKS = (
    check_lines,
    check_subsets,
    check_published,
    check_labels,
    check_overlap,
    check_links,
    check_folders,
    check_counts,
)


def check_lists(dataset: CheckedDataset, group: re.Pattern | None = None) -> list[Finding]:
    """The quick part: the lists, and the names of the files that they need."""
    findings = [finding for check in QUICK_CHECKS for finding in check(dataset)]
    return ordered([*findings, *check_groups(dataset, group)])


def examine(
    dataset: CheckedDataset,
    deep: bool,
    workers: int,
    progress: Callable[[Iterable[VideoReport], int], Iterable[VideoReport]],
    group: re.Pattern | None = None,
) -> list[Finding]:
    """Everything: the quick part, folders without lists, images, flow, duplicates.

    Args:
        deep: read all images, not a few of each video, and compare flow with frames.
        workers: processes.
        progress: wraps the videos' reports, of which it is told the number.
        group: what in a video's name tells its group, instead of the known patterns.
    """
    frames, names = dataset.frames, dataset.spec.names
    # names
    findings = [*check_lists(dataset, group), *check_unlisted(dataset)]
    # images
    preparation = read_preparation(frames)
    checks = ImageChecks(frames, names, dataset.modalities, preparation, dataset.fixes, deep)
    folders = {video: folder for video, folder in dataset.folders.items() if folder is not None}
    with ProcessPoolExecutor(max(1, min(workers, len(folders)))) as pool:
        results = pool.map(checks, folders, folders.values(), chunksize=4)
        reports = list(progress(results, len(folders)))
    for report in reports:
        findings += report.findings
    for modality in dataset.modalities:
        findings += checks.check_sizes(reports, modality)
        findings += checks.check_quality(reports, modality)

    # duplicates
    @cache  # where a scene has many clips, each is compared many times
    def read_thumbnail(video: str, number: int) -> np.ndarray:
        return thumbnail(read_grey(frames, names, video, number))

    hashes = {report.video: report.hashes for report in reports}
    return ordered([*findings, *check_duplicates(dataset, hashes, read_thumbnail)])
