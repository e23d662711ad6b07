"""Lists against the frame folders: missing folders, wrong counts, gaps, numbering from 0."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from datasets.doctor.dataset import CheckedDataset, VideoList, read_lists
from datasets.doctor.findings import Finding
from datasets.records import VideoRecord
from datasets.sources.folders import MODALITIES, Folder, find_frame_folders


def check_links(dataset: CheckedDataset) -> Iterator[Finding]:
    """Frame folders that are links to somewhere else are refused when they are read."""
    root, home = dataset.frames, os.path.realpath(dataset.frames)
    for folder in dataset.folders:
        if not Path(os.path.realpath(root / folder)).is_relative_to(home):
            message = f"'{folder}' is a link out of {root}"
            fix = "put the frames there, or give --frames the folder that it points into"
            yield Finding("error", "link", folder, message, fix)


def check_folders(dataset: CheckedDataset) -> Iterator[Finding]:
    """The numbering within each folder, x versus y, RGB versus flow."""
    for video, folder in dataset.folders.items():
        for modality in dataset.modalities if folder else ():
            faults = [
                fault
                for plane, numbers in folder.planes(modality).items()
                for fault in _numbering(video, plane, numbers)
            ]
            x, y = len(folder.flow_x), len(folder.flow_y)
            if modality == "flow" and x != y and not faults:
                faults.append(("x-y", f"'{video}' has {x} x and {y} y flow images"))
            for kind, message in faults:
                yield Finding("error", kind, video, message, dataset.fixes.extract_again(video))
    if set(dataset.modalities) == set(MODALITIES):
        yield from _check_flow_counts(dataset)


def _numbering(video: str, plane: str, numbers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """(kind of finding, message) of what is wrong with the numbers 1, 2, 3, ... of a folder."""
    if isinstance(numbers, range):
        return
    if numbers[0] == 0:
        yield "from-zero", f"'{video}': {plane} images are numbered from 0; they must begin with 1"
    there = set(numbers)  # the last number may be any, far beyond what a set could hold
    missing = [*islice((n for n in range(1, numbers[-1]) if n not in there), 6)]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        yield "gap", f"'{video}': {plane} images {some} are missing below {numbers[-1]}"


def is_sound(folder: Folder, modality: str) -> bool:
    """Whether a folder's numbering gives nothing to complain of, so that its count counts."""
    x, *y = folder.planes(modality).values()
    return isinstance(x, range) and all(numbers == x for numbers in y)


def _check_flow_counts(dataset: CheckedDataset) -> Iterator[Finding]:
    """n frames have n - 1 flow images between them."""
    sound = {
        video: (len(folder.rgb), len(folder.flow_x))
        for video, folder in dataset.folders.items()
        if folder and folder.flow_x and folder.rgb
        if is_sound(folder, "rgb") and is_sound(folder, "flow")
    }
    if len(sound) > 1 and all(frames == flows for frames, flows in sound.values()):
        message = "all videos have as many flow images as frames; the last of them is not used"
        yield Finding("info", "flow-count", "", message)
        return
    for video, (frames, flows) in sound.items():
        if flows != frames - 1:
            message = f"'{video}' has {frames} frames and {flows} flow images, not {frames - 1}"
            fix = dataset.fixes.extract_again(video)
            yield Finding("error", "flow-count", video, message, fix)


def check_counts(dataset: CheckedDataset) -> Iterator[Finding]:
    """The lists' counts against the images on disk."""
    for entry in dataset.lists:
        sound: list[tuple[VideoRecord, int]] = []
        for record in entry.records:
            folder = dataset.folders[record.folder]
            if folder is None:
                message = f"{record.line}: no frame folder {dataset.frames / record.folder}"
                fix = f"{dataset.fixes.prepare}, or {dataset.fixes.drop_line(record)}"
                yield Finding("error", "no-folder", record.folder, message, fix)
            elif is_sound(folder, entry.modality):
                sound.append((record, len(folder.of(entry.modality))))
        if usual := _convention(entry, sound):
            yield Finding("info", "count-convention", "", f"{entry.path.name} {usual}")
            continue
        for record, images in sound:
            if record.count != images:
                yield _count_finding(dataset, record, images, entry.modality)


def _convention(entry: VideoList, sound: list[tuple[VideoRecord, int]]) -> str:
    """How a list counts throughout, if it is one of the two other ways in use."""
    offset = {record.count - images for record, images in sound}
    if len(sound) > 1 and entry.modality == "flow" and offset == {1}:
        return "counts frames, one more than there is flow; readers allow for it"
    if len(sound) > 1 and entry.modality == "rgb" and offset == {-1}:
        return "counts the steps between frames; the last frame of each video is not used"
    return ""


def _count_finding(
    dataset: CheckedDataset, record: VideoRecord, images: int, modality: str
) -> Finding:
    folder, fixes = dataset.folders[record.folder], dataset.fixes
    message = (
        f"{record.line}: '{record.folder}' should have {record.count} {modality} images, but "
        f"{dataset.frames / record.folder} has {images}"
    )
    if folder.other:
        message += f" (it holds '{folder.other}': other file names are not read)"
    if record.count < images:
        fix = fixes.set_count(record, images)
        return Finding("warning", "count-below", record.folder, message, fix)
    whole = modality == "flow" or not folder.flow_x or len(folder.flow_x) == images - 1
    fix = fixes.extract_again(record.folder)
    if images and whole:
        fix = f"{fixes.set_count(record, images)}, or {fix}"
    severity = "warning" if modality == "flow" and record.count == images + 1 else "error"
    return Finding(severity, "count-above", record.folder, message, fix)


FOLDER_CHECKS = (check_links, check_folders, check_counts)  # by names alone, of listed videos


def check_unlisted(dataset: CheckedDataset) -> Iterator[Finding]:
    """Frame folders that no list of any split names."""
    every = read_lists(dataset.lists[0].path.parent, None, MODALITIES)
    listed = set().union(*(entry.videos for entry in every))
    for folder in find_frame_folders(dataset.frames, dataset.spec.names):
        if folder not in listed:
            complete = dataset.spec.complete  # whether the lists should name all
            severity = "warning" if complete else "info"
            message = f"no list names the frame folder '{folder}'"
            fix = f"{dataset.fixes.prepare}, or remove it" if complete else ""
            yield Finding(severity, "not-listed", folder, message, fix)
