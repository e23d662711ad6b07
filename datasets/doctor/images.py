"""Images: whether they can be read, their size, and the JPEG quality that they were saved with."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from datasets.doctor.findings import Finding, Mender
from datasets.lists import DataError
from datasets.prepare.extract import Preparation
from datasets.sources.frames import read_image

LOWEST_QUALITY = 80
QUALITY_TOLERANCE = 3
ASPECT_TOLERANCE = 0.02
# Sum over the luminance table of ITU-T T.81, annex K.1, as libjpeg scales it, for quality 1..100.
BASE_TABLE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
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


def read_strictly(path: Path) -> tuple[np.ndarray, bool]:
    """An image in grey, uint8 (H, W), and whether its data are damaged somewhere inside.

    Raises DataError if it cannot be read or breaks off early.
    """
    try:
        return simplejpeg.decode_jpeg(path.read_bytes(), "GRAY")[..., 0], False
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # also what decoders get over without a word
        image = read_image(path, cv2.IMREAD_GRAYSCALE)
        with open(path, "rb") as file:
            return image, file.read(2) == b"\xff\xd8"


def check_sizes(
    sizes: Mapping[str, Sequence[tuple[int, int]]],
    modality: str,
    preparation: Preparation | None,
    mender: Mender,
) -> Iterator[Finding]:
    """Videos (-> the sizes of their images) that differ from the rest, or within themselves."""
    uniform = {}
    for video, found in sizes.items():
        if len(found) > 1:
            message = f"'{video}' has {modality} images of several sizes: {_sizes(found)}"
            yield Finding("warning", "sizes-mixed", video, message, mender.extract_again(video))
        elif found:
            uniform[video] = found[0]
    if not uniform:
        return
    most = Counter(uniform.values()).most_common()
    usual, why = most[0][0], f"{most[0][1]} of {len(uniform)} videos have"
    if preparation and preparation.width:
        usual, why = (preparation.width, preparation.height), "preparation.json says"
    elif most[0][1] <= len(uniform) / 2:
        message = f"{modality} images come in many sizes: {_sizes([size for size, _ in most])}"
        mend = f"extract all at one size, such as 340x256: {mender.prepare}"
        yield Finding("warning", "sizes-vary", "", message, mend)
        return
    for video, (width, height) in uniform.items():
        if (width, height) != usual:
            stretch = (width / height) / (usual[0] / usual[1])
            kind = "size" if abs(stretch - 1) <= ASPECT_TOLERANCE else "aspect"
            message = (
                f"'{video}' has {modality} images of {width}x{height}; {why} {_sizes([usual])}"
            )
            yield Finding("warning", kind, video, message, mender.extract_again(video))


def _sizes(sizes: Sequence[tuple[int, int]], most: int = 5) -> str:
    text = ", ".join(f"{width}x{height}" for width, height in sizes[:most])
    return text + (", ..." if len(sizes) > most else "")


def check_quality(
    qualities: Mapping[str, int],
    modality: str,
    preparation: Preparation | None,
    mender: Mender,
) -> Iterator[Finding]:
    """Videos (-> their lowest JPEG quality) below 80, or other than recorded."""
    for video, quality in qualities.items():
        recorded = preparation.quality if preparation else quality
        if quality < LOWEST_QUALITY:
            kind = "quality"
            message = f"'{video}' has {modality} JPEGs of quality {quality}, below {LOWEST_QUALITY}"
        elif abs(quality - recorded) > QUALITY_TOLERANCE:
            kind = "quality-recorded"
            message = (
                f"'{video}' has {modality} JPEGs of quality {quality}, not {recorded} as recorded"
            )
        else:
            continue
        yield Finding("warning", kind, video, message, mender.extract_again(video))
