"""Pictures -> a frame folder with flow, written whole or not at all."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from datasets.files import DataError, check_file
from datasets.flow.engines import create_flow, encode_flow
from datasets.preparation import Preparation
from datasets.prepare.work import (
    check_replaceable,
    path_inside,
    remove_flow,
    remove_images,
    work_folder,
)
from datasets.sources.folders import USUAL_NAMES, FrameNames, count_images

FLOW_PAIRS = 64  # frame pairs whose flow is computed at once
cached_engine = lru_cache(maxsize=1)(create_flow)  # one for all videos of a process


def extract(
    pictures: Iterable[np.ndarray],
    root: Path,
    folder: str,
    preparation: Preparation,
    device: str = "cpu",
) -> int:
    """Writes a video's pictures and flow under `root/folder` and returns the number of frames.

    `pictures` are uint8 (H, W, 3), BGR, of the prepared size; `device` is where the flow is
    computed. The folder is filled under a hidden name first, so that a half-written one is never
    taken for whole. An earlier folder of that name is replaced if a preparation made it; raises
    DataError, before any work, if it did not, or if a link is in the way.
    """
    target = check_replaceable(root, folder)
    with work_folder(root, folder) as work:
        # frames and flow
        saved = _save_each(pictures, work, preparation.quality)
        if preparation.has_flow:
            count = write_flow(saved, work, preparation, device)
        else:
            count = sum(1 for _ in saved)
        # the whole folder, under its name
        if check_replaceable(root, folder).exists():
            remove_images(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        work.rename(target)
    return count


def add_flow(
    root: Path,
    folder: str,
    preparation: Preparation,
    names: FrameNames = USUAL_NAMES,
    device: str = "cpu",
) -> int:
    """Adds flow to the frames in `root/folder`, which stay as they are; returns their number.

    The flow images are moved there when all are written. A move that is interrupted leaves fewer
    than n - 1 of x or of y, so that the folder is not finished.
    """
    target = path_inside(root, folder)
    with work_folder(root, folder) as work:
        count = write_flow(_stored_pictures(target, names), work, preparation, device)
        remove_flow(path_inside(root, folder), names)
        for path in sorted(work.iterdir()):
            path.replace(target / path.name)
    return count


def _save_each(pictures: Iterable[np.ndarray], folder: Path, quality: int) -> Iterator[np.ndarray]:
    for number, picture in enumerate(pictures, 1):
        save_jpeg(folder / f"{USUAL_NAMES.rgb.format(number)}.jpg", picture, quality)
        yield picture


def _stored_pictures(folder: Path, names: FrameNames) -> Iterator[np.ndarray]:
    """The frames of a folder, uint8 (H, W, 3), BGR; raises DataError for one that is not right."""
    first = None
    for number in range(1, count_images(folder, names, "rgb")[0] + 1):
        found = names.find(folder, "rgb", number)
        if not found:
            raise DataError(f"frame {number} is missing; extract the frames again")
        picture = cv2.imread(str(check_file(found[0], "frame")), cv2.IMREAD_COLOR)
        if picture is None:
            raise DataError(f"cannot read {found[0].name}; extract the frames again")
        first = picture if first is None else first
        if picture.shape != first.shape:
            sizes = ["x".join(map(str, p.shape[1::-1])) for p in (picture, first)]
            raise DataError(f"{found[0].name} is {sizes[0]}, the first frame {sizes[1]}")
        yield picture


def write_flow(
    pictures: Iterable[np.ndarray], folder: Path, preparation: Preparation, device: str
) -> int:
    """Writes the flow between n pictures as n - 1 pairs of images, and returns n."""
    engine = cached_engine(preparation.flow, device)
    pictures = iter(pictures)
    last = list(islice(pictures, 1))  # the picture that the next pair begins with
    count = len(last)
    while more := list(islice(pictures, FLOW_PAIRS)):
        images = encode_flow(engine(np.stack(last + more)), preparation.bound)
        for number, planes in enumerate(images, count):
            for pattern, plane in zip(USUAL_NAMES.patterns("flow"), planes, strict=True):
                save_jpeg(folder / f"{pattern.format(number)}.jpg", plane, preparation.quality)
        last, count = more[-1:], count + len(more)
    if count < 2:
        raise DataError(f"the video has {count} frames; at least 2 are needed")
    return count


def save_jpeg(path: Path, image: np.ndarray, quality: int) -> None:
    """Encodes and writes; unlike `cv2.imwrite`, a full disk raises OSError."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"cannot encode {path.name}, an image of shape {image.shape}")
    path.write_bytes(data.tobytes())
