"""JPEG bytes -> pixels, as fast as libjpeg-turbo goes on one core.

simplejpeg and OpenCV hold the same decoder and give the same pixels. simplejpeg decodes into
memory that is already there (the page faults of a new image can cost as much as half its
decoding), and it can decode at a fraction of the size. What it refuses (other formats, odd colours)
goes to OpenCV.
"""

import cv2
import numpy as np
import simplejpeg

from datasets.lists import DataError

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
        if data[:2] != JPEG_START or data[-2:] != JPEG_END or b"Exif\0" in bytes(data[:64]):
            return self._decode_carefully(bytes(data), name, out)
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data, **self.scaling)
            shape = (height, width, self.channels)
            if out is None or out.shape != shape:
                out = self._own(shape)
            return simplejpeg.decode_jpeg(data, self.colour, buffer=out, **self.scaling)
        except ValueError:
            return self._decode_carefully(bytes(data), name, out)

    def _own(self, shape: tuple[int, int, int]) -> np.ndarray:
        if self._memory.shape != shape:
            self._memory = np.empty(shape, np.uint8)
        return self._memory

    def _decode_carefully(self, data: bytes, name: str, out: np.ndarray | None) -> np.ndarray:
        image = decode_image(data, self.flags, name)
        image = image if image.ndim == 3 else image[..., None]
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
