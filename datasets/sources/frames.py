"""Frame folders: where an image lies, whether all are there, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.lists import DataError, VideoRecord
from datasets.sources.jpeg import decode_image
from datasets.sources.reader import JpegReader


@dataclass(frozen=True)
class FrameNames:
    """File names of a dataset's images; `{}` is the number, and each name may lack its suffix.

    Attributes:
        rgb, flow_x, flow_y: patterns without a suffix.
        rgb_suffixes, flow_suffixes: suffixes to look for, the usual one first.
    """

    rgb: str = "img_{:05d}"
    flow_x: str = "flow_x_{:05d}"
    flow_y: str = "flow_y_{:05d}"
    rgb_suffixes: tuple[str, ...] = (".jpg",)
    flow_suffixes: tuple[str, ...] = (".jpg", "")

    def patterns(self, modality: str) -> tuple[str, ...]:
        """The name patterns of one time step: one file for "rgb", two for "flow"."""
        return (self.rgb,) if modality == "rgb" else (self.flow_x, self.flow_y)

    def suffixes(self, modality: str) -> tuple[str, ...]:
        return self.rgb_suffixes if modality == "rgb" else self.flow_suffixes

    def find(self, folder: Path, modality: str, number: int) -> list[Path]:
        """The files of one time step that exist, one for each pattern at most."""
        found = []
        for pattern in self.patterns(modality):
            candidates = (folder / (pattern.format(number) + s) for s in self.suffixes(modality))
            found += [next(filter(Path.exists, candidates), None)]
        return [path for path in found if path is not None]


def check_records(
    records: Sequence[VideoRecord], root: Path, names: FrameNames, modality: str
) -> list[VideoRecord]:
    """The records, their counts known to be on disk: two looks a video, not one an image.

    A flow list may count the video's frames, one more than there is flow: such a count is
    lowered by one. Raises DataError for a missing folder, a count larger than the images on
    disk, or flow with more x than y images or the reverse.
    """
    return [_check_record(record, root, names, modality) for record in records]


def check_inside(record: VideoRecord, path: Path, root: Path) -> None:
    """Raises DataError if what a record names lies outside `root`, by way of a link."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{record.line}: '{record.folder}' is a link out of {root}; put the frames there, or "
            "give --frames the folder that it points into"
        )


def _check_record(record: VideoRecord, root: Path, names: FrameNames, modality: str) -> VideoRecord:
    folder = root / record.folder
    check_inside(record, folder, root)
    needed = len(names.patterns(modality))
    counts = [record.count]
    if modality == "flow" and record.count > 1:
        counts.append(record.count - 1)
    for count in counts:
        last = len(names.find(folder, modality, count))
        behind = len(names.find(folder, modality, count + 1))
        if last == needed and behind in (0, needed):
            return replace(record, count=count)
    raise DataError(_disk_message(record, folder, names, modality))


def _disk_message(record: VideoRecord, folder: Path, names: FrameNames, modality: str) -> str:
    if not folder.is_dir():
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


def count_images(folder: Path, names: FrameNames, modality: str) -> list[int]:
    """How many images there are of each pattern, by listing the folder."""
    files = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    counts = []
    for pattern in names.patterns(modality):
        prefix = pattern.split("{")[0]
        numbers = {f.removeprefix(prefix).split(".")[0] for f in files if f.startswith(prefix)}
        counts.append(sum(number.isdecimal() for number in numbers))
    return counts


class FrameReader(JpegReader):
    """Reads frame folders.

    Args:
        root: folder that holds the videos' frame folders.
        names: file names of the images.
        modality, size, scaled: see `Reader` and `JpegReader`.
    """

    def __init__(
        self,
        root: Path,
        names: FrameNames,
        modality: str,
        size: tuple[int, int],
        scaled: bool = False,
    ):
        super().__init__(modality, size, scaled)
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


def read_bytes(path: Path | str) -> bytes:
    """A file's content; FileNotFoundError stays, other reasons are a DataError."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def read_image(path: Path, flags: int) -> np.ndarray:
    """Decodes an image file; raises DataError if it cannot be read or breaks off early."""
    try:
        return decode_image(read_bytes(path), flags, str(path))
    except FileNotFoundError:
        raise DataError(f"cannot read {path}: there is no such file") from None
