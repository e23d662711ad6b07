"""Pictures -> a frame folder with flow, written whole or not at all, and the record of how."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.flow import FLOW_METHODS, encode_flow
from datasets.frames import FrameNames, count_images
from datasets.settings_file import DataError, write_lines

NAMES = FrameNames()
RECORD_FILE = "preparation.json"
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Preparation:
    """How frames and flow were made; stored beside them as `preparation.json`.

    Attributes:
        width, height: pixels that each frame is stretched to.
        quality: of the JPEG files, 1..100.
        flow: a key of FLOW_METHODS, or "none".
        bound: displacement in pixels that becomes 0 (negative) or 255 (positive).
    """

    width: int = 340
    height: int = 256
    quality: int = 95
    flow: str = "dis"
    bound: float = 20.0

    @property
    def has_flow(self) -> bool:
        return self.flow != "none"


def read_preparation(frames: Path) -> Preparation | None:
    """The record of a dataset's frames folder, None without one."""
    path = frames / RECORD_FILE
    if not path.exists():
        return None
    try:
        return Preparation(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def start_preparation(frames: Path, preparation: Preparation) -> None:
    """Writes the record, or refuses to mix frames that were made in different ways."""
    earlier = read_preparation(frames)
    if earlier is not None and earlier != preparation:
        raise DataError(
            f"{frames} holds frames made with {describe(earlier)}, now asked for "
            f"{describe(preparation)}; use the same flags, or another --frames folder"
        )
    write_lines(frames / RECORD_FILE, [json.dumps(asdict(preparation), indent=2)])


def describe(preparation: Preparation) -> str:
    """One line for people."""
    return ", ".join(f"{key} {value}" for key, value in asdict(preparation).items())


def is_finished(folder: Path, preparation: Preparation) -> bool:
    """Whether a frame folder is whole: n frames and, with flow, n - 1 images of x and of y."""
    frames = count_images(folder, NAMES, "rgb")[0]
    flows = count_images(folder, NAMES, "flow")
    return frames > 0 and (not preparation.has_flow or flows == [frames - 1, frames - 1])


def extract(
    pictures: Iterable[np.ndarray], root: Path, folder: str, preparation: Preparation
) -> int:
    """Writes a video's pictures and flow under `root/folder` and returns the number of frames.

    `pictures` are uint8 (H, W, 3), BGR, of the prepared size. The folder is filled under a
    hidden name first, so that a half-written one is never taken for whole.
    """
    target, work = root / folder, root / UNFINISHED / folder
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        count = _write_images(pictures, work, preparation)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _write_images(pictures: Iterable[np.ndarray], folder: Path, preparation: Preparation) -> int:
    count, previous = 0, None
    for count, picture in enumerate(pictures, 1):
        save_jpeg(folder / f"{NAMES.rgb.format(count)}.jpg", picture, preparation.quality)
        if not preparation.has_flow:
            continue
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        if count == 1:
            method = FLOW_METHODS[preparation.flow]()
        else:
            images = encode_flow(method(previous, grey), preparation.bound)
            for pattern, image in zip((NAMES.flow_x, NAMES.flow_y), _planes(images), strict=True):
                save_jpeg(folder / f"{pattern.format(count - 1)}.jpg", image, preparation.quality)
        previous = grey
    if count == 0 or (preparation.has_flow and count == 1):
        needed = 2 if preparation.has_flow else 1
        raise DataError(f"the video has {count} frames; at least {needed} are needed")
    return count


def _planes(image: np.ndarray) -> Iterator[np.ndarray]:
    return (np.ascontiguousarray(image[..., channel]) for channel in range(image.shape[-1]))


def save_jpeg(path: Path, image: np.ndarray, quality: int) -> None:
    """Encodes and writes; unlike `cv2.imwrite`, a full disk raises OSError."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"cannot encode {path.name}, an image of shape {image.shape}")
    path.write_bytes(data.tobytes())


def clean_up(root: Path) -> None:
    """Removes what interrupted runs left half-written."""
    shutil.rmtree(root / UNFINISHED, ignore_errors=True)
