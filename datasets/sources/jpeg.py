"""What an image's bytes say before it is decoded: size, channels, JPEG quality; if data lack."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# Only headers are read here, and decoders are asked after the reader's own limit.
Image.MAX_IMAGE_PIXELS = None

Bytes = bytes | memoryview
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
QUALITY_TOLERANCE = 3
# Sum over the luminance table of ITU-T T.81, annex K.1, as libjpeg scales it, for quality 1..100.
BASE_TABLE = np.array(
    """
    16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55
    14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
    """.split(),
    int,
)
QUALITIES = np.arange(1, 101)
SCALES = np.where(QUALITIES < 50, 5000 // QUALITIES, 200 - 2 * QUALITIES)
TABLE_SUMS = np.clip((BASE_TABLE * SCALES[:, None] + 50) // 100, 1, 255).sum(axis=1)
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # of Pillow, before a ";16" and the like


@dataclass(frozen=True)
class Header:
    """Size (width, height) of an image, its JPEG quality, 1..100 or None, and whether it is grey.

    An image is grey if it has one channel, apart from transparency.
    """

    size: tuple[int, int]
    quality: int | None
    grey: bool


def parse_header(data: bytes) -> Header:
    """What an image's bytes say of it; raises ValueError, with the reason, if they are none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            tables = getattr(image, "quantization", None)
            quality = estimate_quality(tables[0]) if tables else None
            return Header(image.size, quality, image.mode.split(";")[0] in GREY_MODES)
    except UnidentifiedImageError:
        raise ValueError("of no known format") from None
    except Exception as error:  # each format's parser has its own for broken headers
        raise ValueError(f"{type(error).__name__}: {error}") from None


def read_size(data: Bytes) -> tuple[tuple[int, int], bool]:
    """((width, height), whether it is grey) of an image, of a JPEG in 2 microseconds.

    Raises ValueError, with the reason, if it is none.
    """
    if data[:2] == JPEG_START:
        with suppress(ValueError):
            height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
            return (width, height), colour == "Gray"
    header = parse_header(bytes(data))
    return header.size, header.grey


def ends_early(data: bytes) -> bool:
    """Whether a JPEG lacks part of its picture: decoders fill it with grey 128 and only warn.

    The decoder tells its first warning alone. After another one, the last block is asked: it is
    of nothing but 128 if no data were left for it.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY")
        return False
    except ValueError as error:
        if "premature end" in str(error).lower():
            return True
    with suppress(ValueError):  # of colours that have no grey
        image = simplejpeg.decode_jpeg(data, "GRAY", strict=False)
        height, width = image.shape[0] - 1, image.shape[1] - 1
        return bool((image[height // 8 * 8 :, width // 8 * 8 :] == 128).all())
    return False


def estimate_quality(table: Sequence[int]) -> int:
    """libjpeg's quality whose luminance quantization table is as coarse as this one."""
    return int(QUALITIES[np.abs(TABLE_SUMS - sum(table)).argmin()])
