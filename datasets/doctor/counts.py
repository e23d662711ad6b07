"""Lists against the frame folders: missing folders, wrong counts, gaps, numbering from 0."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from datasets.doctor.findings import Finding, Mender
from datasets.doctor.folders import Folder
from datasets.doctor.lists import VideoList
from datasets.lists import VideoRecord

Folders = Mapping[str, Folder | None]


def check_links(folders: Iterable[str], root: Path) -> Iterator[Finding]:
    """Frame folders that are links to somewhere else are refused when they are read."""
    home = root.resolve()
    for folder in folders:
        path = root / folder
        linked = path.is_symlink() or any((root / p).is_symlink() for p in Path(folder).parents)
        if linked and not path.resolve().is_relative_to(home):
            message = f"'{folder}' is a link out of {root}"
            mend = "put the frames there, or give --frames the folder that it points into"
            yield Finding("error", "link", folder, message, mend)


def check_folders(folders: Folders, modalities: Sequence[str], mender: Mender) -> Iterator[Finding]:
    """The numbering within each folder, x versus y, RGB versus flow."""
    for video, folder in folders.items():
        if folder is None:
            continue
        for modality in modalities:
            kinds = folder.kinds(modality)
            faulty = False
            for kind, numbers in kinds.items():
                for name, message in _numbering(video, kind, numbers):
                    faulty = True
                    yield Finding("error", name, video, message, mender.extract_again(video))
            x, y = (len(numbers) for numbers in (folder.flow_x, folder.flow_y))
            if modality == "flow" and x != y and not faulty:
                message = f"'{video}' has {x} x and {y} y flow images"
                yield Finding("error", "x-y", video, message, mender.extract_again(video))
    if set(modalities) == {"rgb", "flow"}:
        yield from _check_flow_counts(folders, mender)


def _numbering(video: str, kind: str, numbers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """(kind of finding, message) of what is wrong with the numbers 1, 2, 3, ... of a folder."""
    if not numbers or isinstance(numbers, range):
        return
    if numbers[0] == 0:
        yield "from-zero", f"'{video}': {kind} images are numbered from 0; they must begin with 1"
    missing = sorted(set(range(1, numbers[-1])) - set(numbers))
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        yield "gap", f"'{video}': {kind} images {some} are missing below {numbers[-1]}"


def is_sound(folder: Folder, modality: str) -> bool:
    """Whether a folder's numbering gives nothing to complain of, so that its count counts."""
    x, *y = (list(numbers) for numbers in folder.kinds(modality).values())
    return x == list(range(1, len(x) + 1)) and all(numbers == x for numbers in y)


def _check_flow_counts(folders: Folders, mender: Mender) -> Iterator[Finding]:
    """n frames have n - 1 flow images between them."""
    sound = {
        video: (len(folder.rgb), len(folder.flow_x))
        for video, folder in folders.items()
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
            yield Finding("error", "flow-count", video, message, mender.extract_again(video))


def check_counts(entry: VideoList, folders: Folders, mender: Mender) -> Iterator[Finding]:
    """A list's counts against the images on disk."""
    sound: list[tuple[VideoRecord, int]] = []
    for record in entry.records:
        folder = folders[record.folder]
        if folder is None:
            message = f"{record.line}: no frame folder {mender.frames / record.folder}"
            mend = f"{mender.prepare}, or {mender.drop_line(record)}"
            yield Finding("error", "no-folder", record.folder, message, mend)
        elif is_sound(folder, entry.modality):
            sound.append((record, len(folder.of(entry.modality))))
    usual = _convention(entry, sound)
    if usual:
        yield Finding("info", "count-convention", "", f"{entry.path.name} {usual}")
        return
    for record, images in sound:
        if record.count != images:
            yield _count_finding(record, images, entry.modality, folders[record.folder], mender)


def _convention(entry: VideoList, sound: list[tuple[VideoRecord, int]]) -> str:
    """How a list counts throughout, if it is one of the two other ways in use."""
    offset = {record.count - images for record, images in sound}
    if len(sound) > 1 and entry.modality == "flow" and offset == {1}:
        return "counts frames, one more than there is flow; readers allow for it"
    if len(sound) > 1 and entry.modality == "rgb" and offset == {-1}:
        return "counts the steps between frames; the last frame of each video is not used"
    return ""


def _count_finding(
    record: VideoRecord, images: int, modality: str, folder: Folder, mender: Mender
) -> Finding:
    message = (
        f"{record.line}: '{record.folder}' should have {record.count} {modality} images, but "
        f"{mender.frames / record.folder} has {images}"
    )
    if folder.other:
        message += f" (it holds '{folder.other}': other file names are not read)"
    if record.count < images:
        mend = mender.set_count(record, images)
        return Finding("warning", "count-below", record.folder, message, mend)
    whole = modality == "flow" or not folder.flow_x or len(folder.flow_x) == images - 1
    mend = mender.extract_again(record.folder)
    if images and whole:
        mend = f"{mender.set_count(record, images)}, or {mend}"
    tolerated = modality == "flow" and record.count == images + 1
    severity = "warning" if tolerated else "error"
    return Finding(severity, "count-above", record.folder, message, mend)


def check_unlisted(unlisted: Iterable[str], complete: bool, mender: Mender) -> Iterator[Finding]:
    """Frame folders that no list names; `complete`: whether the lists should name all."""
    for folder in unlisted:
        yield Finding(
            "warning" if complete else "info",
            "not-listed",
            folder,
            f"no list names the frame folder '{folder}'",
            f"{mender.prepare}, or remove it" if complete else "",
        )
