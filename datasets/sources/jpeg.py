"""What the first bytes of an image file say: its size, and the JPEG quality it was saved with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from datasets.files import DataError

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


@dataclass(frozen=True)
class Header:
    """Size (width, height) of an image, and its JPEG quality, 1..100; None for no JPEG."""

    size: tuple[int, int]
    quality: int | None


def read_header(path: Path) -> Header:
    """What the first bytes of an image say; raises DataError if it is none."""
    try:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None)
            return Header(image.size, estimate_quality(tables[0]) if tables else None)
    except UnidentifiedImageError:
        raise DataError(f"{path} is not a readable image") from None
    except (OSError, SyntaxError) as error:  # how Pillow calls broken headers
        raise DataError(f"{path} is not a readable image ({error})") from None


def estimate_quality(table: Sequence[int]) -> int:
    """libjpeg's quality whose luminance quantization table is as coarse as this one."""
    return int(QUALITIES[np.abs(TABLE_SUMS - sum(table)).argmin()])
