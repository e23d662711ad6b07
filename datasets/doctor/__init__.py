"""The dataset doctor: lists against disk, images, flow, leaks between training and test.

`check_lists` needs names alone and runs before each training; `examine` also opens images, a few
of each video or, deep, all. Checks are functions that yield findings.
"""

import re

from datasets.doctor import counts, lists
from datasets.doctor.dataset import CheckedDataset, open_checked
from datasets.doctor.duplicates import check_duplicates
from datasets.doctor.findings import Finding, ordered
from datasets.doctor.images import ImageChecks
from datasets.preparation import read_preparation
from datasets.sources.pool import in_processes

__all__ = ["CheckedDataset", "Finding", "check_lists", "examine", "open_checked"]


def check_lists(dataset: CheckedDataset, group: re.Pattern | None = None) -> list[Finding]:
    """The quick part: the lists, and the names of the files that they need."""
    findings = [*lists.check_groups(dataset, group)]
    for check in (*lists.LIST_CHECKS, *counts.FOLDER_CHECKS):
        findings += check(dataset)
    return ordered(findings)


def examine(
    dataset: CheckedDataset, deep: bool, workers: int, group: re.Pattern | None = None
) -> list[Finding]:
    """Everything: the quick part, folders without lists, images, flow, duplicates.

    Args:
        deep: read all images, not a few of each video, and compare flow with frames.
        workers: processes.
        group: what in a video's name tells its group, instead of the known patterns.
    """
    # names
    findings = [*check_lists(dataset, group), *counts.check_unlisted(dataset)]
    # what the videos were
    frames, names = dataset.frames, dataset.spec.names
    preparation = read_preparation(frames)
    remarks = preparation.remarks() if preparation else {}
    findings += [Finding("warning", kind, "", line) for kind, line in remarks.items()]
    # images
    checks = ImageChecks(frames, names, dataset.modalities, preparation, dataset.fixes, deep)
    folders = {video: folder for video, folder in dataset.folders.items() if folder is not None}
    count = max(1, min(workers, len(folders)))
    reports = in_processes(checks, [*folders.items()], count)
    for report in reports:
        findings += report.findings
    for modality in dataset.modalities:
        findings += checks.check_sizes(reports, modality)
        findings += checks.check_quality(reports, modality)
    # duplicates
    hashes = {report.video: report.hashes for report in reports}
    return ordered([*findings, *check_duplicates(dataset, hashes)])
