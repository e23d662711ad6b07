"""Frame folders as a source: whether all listed images are there, and reading them."""

import os
from dataclasses import replace
from pathlib import Path

from datasets.files import DataError, read_bytes
from datasets.records import MAX_PIXELS, VideoRecord
from datasets.sources.folders import FrameNames, count_images
from datasets.sources.reader import JpegReader


def check_inside(record: VideoRecord, path: Path, root: Path) -> None:
    """Raises DataError if what a record names lies outside `root`, by way of a link."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DataError(
            f"{record.line}: '{record.folder}' is a link out of {root}; put the frames there, or "
            "give --frames the folder that it points into"
        )


def check_record(record: VideoRecord, root: Path, names: FrameNames, modality: str) -> VideoRecord:
    """The record, its count known to be on disk: two checks a video, not one an image.

    A flow list may count the video's frames, one more than there is flow: such a count is
    lowered by one. Raises DataError for a missing folder, a count larger than the images on
    disk, or flow with more x than y images or the reverse.
    """
    folder = root / record.folder
    check_inside(record, folder, root)
    needed = len(names.patterns(modality))
    for count in (record.count, record.count - 1) if modality == "flow" else (record.count,):
        last = len(names.find(folder, modality, count))
        after = len(names.find(folder, modality, count + 1))
        if last == needed and after in (0, needed):
            return replace(record, count=count)
    raise DataError(_disk_message(record, folder, names, modality))


def _disk_message(record: VideoRecord, folder: Path, names: FrameNames, modality: str) -> str:
    if not os.path.isdir(folder):
        return f"{record.line}: no frame folder {folder}; extract its frames or give --frames"
    counts = count_images(folder, names, modality)
    if len(set(counts)) > 1:
        return (
            f"{record.line}: '{record.folder}' has {counts[0]} x and {counts[1]} y flow images; "
            "extract its flow again"
        )
    return (
        f"{record.line}: '{record.folder}' should have {record.count} {modality} images, "
        f"but {folder} has {counts[0]}; extract them again or correct the list"
    )


class FrameReader(JpegReader):
    """Reads the frame folders in `root`; the other arguments: see `JpegReader`."""

    def __init__(
        self,
        root: Path,
        names: FrameNames,
        modality: str,
        size: tuple[int, int],
        scaled: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(modality, size, scaled, max_pixels)
        self.root, self.names = root, names

    def files(self, record: VideoRecord, number: int) -> list[tuple[str, bytes]]:
        folder = f"{self.root}/{record.folder}"
        found = []
        for pattern in self.names.patterns(self.modality):
            for suffix in self.names.suffixes(self.modality):
                path = f"{folder}/{pattern.format(number)}{suffix}"
                try:
                    found.append((path, read_bytes(path)))
                    break
                except FileNotFoundError:
                    continue
            else:
                raise DataError(
                    f"lacks {self.modality} image {number} of {record.count} in {folder}"
                )
        return found
