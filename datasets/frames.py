"""Frame folders: where an image lies, and folder -> uint8 array."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from datasets.settings_file import DataError, VideoRecord

# Processes are the parallelism, and OpenCV's own threads would hang in a forked one.
cv2.setNumThreads(1)

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


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


def _check_record(record: VideoRecord, root: Path, names: FrameNames, modality: str) -> VideoRecord:
    folder = root / record.folder
    if not folder.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{record.line}: '{record.folder}' is a link out of {root}; put the frames there, or "
            "give --frames the folder that it points into"
        )
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


class FrameReader:
    """Reads the images of a video at the size that the network's transforms start from.

    Args:
        root: folder that holds the videos' frame folders.
        names: file names of the images.
        modality: "rgb" or "flow".
        size: (width, height) that each image is resized to, bilinearly, ignoring its aspect.
    """

    def __init__(self, root: Path, names: FrameNames, modality: str, size: tuple[int, int]):
        self.root, self.names, self.modality, self.size = root, names, modality, size

    def read(self, record: VideoRecord, numbers: np.ndarray) -> np.ndarray:
        """Images of the given numbers (any shape) -> uint8 (len, H, W, C), in flattened order.

        C is 3 for RGB (in that order) and 2 for flow (x, y). An image that is asked for
        several times is decoded once. Raises DataError, naming video, image and line.
        """
        unique, places = np.unique(numbers, return_inverse=True)
        images = self.read_unique(record, unique)
        return images if np.array_equal(unique, numbers) else images[places.reshape(-1)]

    def read_unique(self, record: VideoRecord, numbers: np.ndarray) -> np.ndarray:
        """The same for numbers known to differ."""
        width, height = self.size
        channels = 3 if self.modality == "rgb" else 2
        images = np.empty((len(numbers), height, width, channels), np.uint8)
        for number, image in zip(numbers, images, strict=True):
            self._read_step(record, int(number), image)
        return images

    def _read_step(self, record: VideoRecord, number: int, out: np.ndarray) -> None:
        paths = self.names.find(self.root / record.folder, self.modality, number)
        if len(paths) < len(self.names.patterns(self.modality)):
            raise DataError(
                f"{record.line}: '{record.folder}' lacks {self.modality} image {number} "
                f"of {record.count} in {self.root / record.folder}"
            )
        try:
            if self.modality == "rgb":
                image = cv2.resize(read_image(paths[0], cv2.IMREAD_COLOR), self.size)
                cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)
            else:
                x, y = (read_image(path, cv2.IMREAD_GRAYSCALE) for path in paths)
                if x.shape != y.shape:
                    raise DataError(f"{paths[0].name} and {paths[1].name} differ in size")
                # Together, not one by one: OpenCV rounds single planes another way, and the
                # reference's scores (tests/golden/scores.json) tell the difference.
                cv2.resize(np.dstack([x, y]), self.size, dst=out)
        except DataError as error:
            raise DataError(f"{record.line}: '{record.folder}': {error}") from None


def read_image(path: Path, flags: int) -> np.ndarray:
    """Decodes an image file; raises DataError if it cannot be read or breaks off early."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if _is_truncated(data):
        raise DataError(f"{path} is a truncated JPEG ({len(data)} bytes); extract it again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise DataError(f"{path} is not a readable image ({len(data)} bytes)")
    return image


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG's picture has no end: decoders fill the rest with grey and say nothing."""
    if not data.startswith(JPEG_START) or data.endswith(JPEG_END):
        return False
    end = data.rfind(JPEG_END)
    return end < 0 or end < data.rfind(JPEG_SCAN)  # a thumbnail has an end of its own
