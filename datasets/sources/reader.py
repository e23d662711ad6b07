"""One reader for every source: a video's images at the size that the transforms start from.

JPEG bytes become pixels as fast as libjpeg-turbo goes on one core. simplejpeg and OpenCV hold the
same decoder and give the same pixels. simplejpeg decodes into memory that is already there (the
page faults of a new image can cost as much as half its decoding), and it can decode at a fraction
of the size. What it refuses (other formats, odd colours) goes to OpenCV.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from datasets.files import DataError
from datasets.records import VideoRecord

PART = 8  # images that pass through the transforms together, and so stay in the processor's cache
# Processes are the parallelism, and OpenCV's own threads would hang in a forked one.
cv2.setNumThreads(1)

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
Bytes = bytes | memoryview


class JpegDecoder:
    """Decodes one image after the other into the same memory.

    Args:
        grey: one channel instead of RGB.
        least: None, or the (width, height) that is wanted in the end: an image at least twice as
            large is then decoded at the smallest of 1/2, 1/4, 1/8 that is no smaller. That is
            faster, and not to the pixel what resizing the whole image gives.
    """

    def __init__(self, grey: bool = False, least: tuple[int, int] | None = None):
        self.colour, self.channels = ("GRAY", 1) if grey else ("RGB", 3)
        self.flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
        self.scaling = {}
        if least:
            self.scaling = {"min_width": least[0], "min_height": least[1], "min_factor": 2}
        self._memory = np.empty(0, np.uint8)

    def __call__(self, data: Bytes, name: str, out: np.ndarray | None = None) -> np.ndarray:
        """uint8 (H, W, 3), or (H, W, 1) of grey; valid until the next call.

        An image of `out`'s shape is written there, and `out` returned.
        Raises DataError, with the name, if the image is unreadable or breaks off early.
        """
        if data[:2] == JPEG_START and data[-2:] == JPEG_END and b"Exif\0" not in bytes(data[:64]):
            with suppress(ValueError):
                height, width, *_ = simplejpeg.decode_jpeg_header(data, **self.scaling)
                shape = (height, width, self.channels)
                if out is None or out.shape != shape:
                    if self._memory.shape != shape:
                        self._memory = np.empty(shape, np.uint8)
                    out = self._memory
                return simplejpeg.decode_jpeg(data, self.colour, buffer=out, **self.scaling)
        image = np.atleast_3d(decode_image(bytes(data), self.flags, name))
        if out is None or out.shape != image.shape:
            return image
        np.copyto(out, image)
        return out


def decode_image(data: bytes, flags: int, name: str) -> np.ndarray:
    """OpenCV's `imdecode`; raises DataError if the image is unreadable or breaks off early."""
    if is_truncated(data):
        raise DataError(f"{name} is a truncated JPEG ({len(data)} bytes); extract it again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise DataError(f"{name} is not a readable image ({len(data)} bytes)")
    return image


def is_truncated(data: bytes) -> bool:
    """Whether a JPEG's picture has no end: decoders fill the rest with grey and say nothing."""
    if not data.startswith(JPEG_START) or data.endswith(JPEG_END):
        return False
    end = data.rfind(JPEG_END)
    return end < 0 or end < data.rfind(JPEG_SCAN)  # a thumbnail has an end of its own


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


class Reader(ABC):
    """Reads images of a video.

    Args:
        modality: "rgb" or "flow".
        size: (width, height) that each image is resized to, bilinearly, ignoring its aspect.
    """

    def __init__(self, modality: str, size: tuple[int, int]):
        self.modality, self.size = modality, size
        self._part = np.empty(0, np.uint8)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C); C is 3 for RGB, in that order, and 2 for flow, x and y."""
        return self.size[1], self.size[0], 3 if self.modality == "rgb" else 2

    @abstractmethod
    def write(
        self, record: VideoRecord, numbers: Iterable[int], slots: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Writes the images of ascending numbers, each into the next slot, and yields the slot.

        Slots are uint8 arrays of `image_shape`. Raises DataError, naming list line, video and file.
        """

    def read(self, record: VideoRecord, numbers: np.ndarray) -> np.ndarray:
        """Images of the given numbers (any shape) -> uint8 (len, H, W, C), in flattened order.

        An image that is asked for several times is decoded once.
        """
        unique, places = np.unique(numbers, return_inverse=True)
        images = self.read_unique(record, unique)
        return images if np.array_equal(unique, numbers) else images[places.reshape(-1)]

    def read_unique(self, record: VideoRecord, numbers: np.ndarray) -> np.ndarray:
        """The same for numbers that ascend."""
        images = np.empty((len(numbers), *self.image_shape), np.uint8)
        for _ in self.write(record, numbers.tolist(), images):
            pass
        return images

    def read_parts(
        self, record: VideoRecord, numbers: np.ndarray
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """The same a few images at a time: (which of the numbers, their images).

        Their memory is used again for the next ones.
        """
        if self._part.shape[1:] != self.image_shape:
            self._part = np.empty((PART, *self.image_shape), np.uint8)
        begun, end = 0, len(numbers)
        for done, _ in enumerate(self.write(record, numbers.tolist(), cycle(self._part)), 1):
            if done - begun == PART or done == end:
                yield slice(begun, done), self._part[: done - begun]
                begun = done


class JpegReader(Reader):
    """A reader of JPEG images, wherever they are kept.

    Args:
        modality, size: see `Reader`.
        scaled: decode images of twice the size or more at a fraction of it (see `JpegDecoder`).
    """

    def __init__(self, modality: str, size: tuple[int, int], scaled: bool = False):
        super().__init__(modality, size)
        least = size if scaled else None
        planes = 1 if modality == "rgb" else 2
        self._decoders = [JpegDecoder(grey=planes == 2, least=least) for _ in range(planes)]

    @abstractmethod
    def files(self, record: VideoRecord, number: int) -> list[tuple[str, Bytes]]:
        """(name, content) of one time step's images: one for RGB, x and y for flow."""

    def write(
        self, record: VideoRecord, numbers: Iterable[int], slots: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        for number, slot in zip(numbers, slots, strict=False):
            try:
                self.decode(self.files(record, number), slot)
            except DataError as error:
                raise DataError(f"{record.line}: '{record.folder}': {error}") from None
            yield slot

    def decode(self, files: list[tuple[str, Bytes]], slot: np.ndarray) -> None:
        """Writes one time step's image, resized, into uint8 (H, W, C)."""
        if self.modality == "rgb":
            ((name, data),) = files
            image = self._decoders[0](data, name, slot)
            if image.shape != slot.shape:
                cv2.resize(image, self.size, dst=slot)
            return
        x, y = (d(data, name) for d, (name, data) in zip(self._decoders, files, strict=True))
        if x.shape != y.shape:
            raise DataError(f"{files[0][0]} and {files[1][0]} differ in size")
        if x.shape[:2] == slot.shape[:2]:
            cv2.merge([x, y], dst=slot)
        else:
            # Together, not one by one: OpenCV rounds single planes another way, and the
            # reference's scores (tests/golden/scores.json) tell the difference.
            cv2.resize(cv2.merge([x, y]), self.size, dst=slot)
