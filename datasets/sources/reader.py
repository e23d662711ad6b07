"""One reader for every source: a video's images at the size that the transforms start from.

JPEG bytes become pixels as fast as libjpeg-turbo decodes on one core. simplejpeg and OpenCV hold
the same decoder and give the same pixels. simplejpeg decodes into memory that is already there (the
page faults of a new image can cost as much as half its decoding), and it can decode at a fraction
of the size. What it refuses (other formats, odd colours) goes to OpenCV.

Files may be anything: only regular files are opened, sizes are read from headers and compared with
a limit before any pixel is decoded, and a JPEG whose data end early, which decoders fill up with
grey, is an error.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from datasets.files import DataError, read_bytes
from datasets.records import MAX_PIXELS, VideoRecord
from datasets.sources.jpeg import (
    JPEG_END,
    JPEG_START,
    Bytes,
    Header,
    ends_early,
    parse_header,
    read_size,
)

PART = 8  # images that pass through the transforms together, and so stay in the processor's cache
# Processes are the parallelism, and OpenCV's own threads would hang in a forked one.
cv2.setNumThreads(1)

TRUNCATED = "{} is a truncated JPEG ({} bytes); extract it again"
MAX_RATIO = 8  # between the areas of one video's images


class JpegDecoder:
    """Decodes one image after the other into the same memory.

    Args:
        grey: one channel instead of RGB, and only of images that have no more.
        least: None, or the (width, height) that is wanted in the end: an image at least twice as
            large is then decoded at the smallest of 1/2, 1/4, 1/8 that is no smaller. That is
            faster, and not to the pixel what resizing the whole image gives.
        max_pixels: larger images are refused.
    """

    def __init__(
        self,
        grey: bool = False,
        least: tuple[int, int] | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        self.colour, self.channels = ("GRAY", 1) if grey else ("RGB", 3)
        self.flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
        self.max_pixels = max_pixels
        self.scaling = {}
        if least:
            self.scaling = {"min_width": least[0], "min_height": least[1], "min_factor": 2}
        self._memory = np.empty(0, np.uint8)
        self._first: tuple[str, int, int] | None = None  # name, width and height

    def begin_video(self) -> None:
        """The next images are another video's, and may be of quite another size."""
        self._first = None

    def __call__(self, data: Bytes, name: str, out: np.ndarray | None = None) -> np.ndarray:
        """uint8 (H, W, 3), or (H, W, 1) of grey; valid until the next call.

        An image of `out`'s shape is written there, and `out` returned.
        Raises DataError, with the name, if the image is unreadable, breaks off early, is too large,
        or has an area more than MAX_RATIO times that of the video's first image, or the reverse.
        """
        (width, height), grey = check_image(data, name, self.max_pixels)
        if self.channels == 1 and not grey:
            raise DataError(
                f"{name} has 3 channels: flow images are grey, one for x and one for y; extract "
                "the flow again"
            )
        self._compare(name, width, height)
        if data[:2] == JPEG_START and b"Exif\0" not in bytes(data[:64]):
            with suppress(ValueError):
                if self.scaling:
                    height, width, *_ = simplejpeg.decode_jpeg_header(data, **self.scaling)
                shape = (height, width, self.channels)
                if out is None or out.shape != shape:
                    if self._memory.shape != shape:
                        self._memory = np.empty(shape, np.uint8)
                    out = self._memory
                return simplejpeg.decode_jpeg(data, self.colour, buffer=out, **self.scaling)
        image = np.atleast_3d(decode_image(bytes(data), self.flags, name, self.max_pixels))
        if out is None or out.shape != image.shape:
            return image
        np.copyto(out, image)
        return out

    def _compare(self, name: str, width: int, height: int) -> None:
        if self._first is None:
            self._first = name, width, height
        other, w, h = self._first
        if not 1 / MAX_RATIO <= width * height / (w * h) <= MAX_RATIO:
            raise DataError(
                f"{name} is {width}x{height} and {other} of the same video is {w}x{h}: their areas "
                f"differ by more than {MAX_RATIO} times; extract them again"
            )


def check_image(
    data: Bytes, name: str, max_pixels: int = MAX_PIXELS
) -> tuple[tuple[int, int], bool]:
    """((width, height), whether it is grey) of an image, by its header.

    Raises DataError, with the name, if it is no image or has more than `max_pixels`.
    """
    try:
        size, grey = read_size(data)
    except ValueError as error:
        if data[:2] == JPEG_START and data[-2:] != JPEG_END:
            raise DataError(TRUNCATED.format(name, len(data))) from None
        raise DataError(f"{name} is not a readable image ({len(data)} bytes, {error})") from None
    if not 0 < size[0] * size[1] <= max_pixels:
        raise DataError(
            f"{name} is {size[0]}x{size[1]}; at most {max_pixels / 1e6:g} megapixels are read "
            "(--max-megapixels)"
        )
    return size, grey


def decode_image(data: bytes, flags: int, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """OpenCV's `imdecode`.

    Raises DataError if the image is unreadable, breaks off early or has more than `max_pixels`.
    """
    check_image(data, name, max_pixels)
    if data[:2] == JPEG_START and ends_early(data):
        raise DataError(TRUNCATED.format(name, len(data)))
    with opencv_errors(name):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise DataError(f"{name} is not a readable image ({len(data)} bytes)")
    return image


@contextmanager
def opencv_errors(name: str) -> Iterator[None]:
    """OpenCV's errors in the block become a DataError with the image's name."""
    try:
        yield
    except cv2.error as error:
        raise DataError(f"{name} is not a readable image ({error.err or error})") from None


def read_image_file(path: Path) -> bytes:
    """A regular file's content; raises DataError for every reason."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise DataError(f"cannot read {path}: there is no such file") from None


def read_header(path: Path) -> Header:
    """What the first bytes of an image file say; raises DataError if it is none."""
    data = read_image_file(path)
    try:
        return parse_header(data)
    except ValueError as error:
        raise DataError(f"{path} is not a readable image ({error})") from None


def read_image(path: Path, flags: int) -> np.ndarray:
    """Decodes an image file; raises DataError if it cannot be read or breaks off early."""
    return decode_image(read_image_file(path), flags, str(path))


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
        max_pixels: larger images are refused.
    """

    def __init__(
        self,
        modality: str,
        size: tuple[int, int],
        scaled: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(modality, size)
        least = size if scaled else None
        planes = 1 if modality == "rgb" else 2
        self._decoders = [JpegDecoder(planes == 2, least, max_pixels) for _ in range(planes)]

    @abstractmethod
    def files(self, record: VideoRecord, number: int) -> list[tuple[str, Bytes]]:
        """(name, content) of one time step's images: one for RGB, x and y for flow."""

    def write(
        self, record: VideoRecord, numbers: Iterable[int], slots: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        for decoder in self._decoders:
            decoder.begin_video()
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
                with opencv_errors(name):
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
            with opencv_errors(files[0][0]):
                cv2.resize(cv2.merge([x, y]), self.size, dst=slot)
