"""One reader for every source: a video's images at the size that the transforms start from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import cycle

import cv2
import numpy as np

from datasets.lists import DataError, VideoRecord
from datasets.sources.jpeg import Bytes, JpegDecoder

PART = 8  # images that pass through the transforms together, and so stay in the processor's cache


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
