"""Data to measure with: textures, and a small dataset as frame folders, packs and video files."""

from itertools import islice
from pathlib import Path

import av
import cv2
import matplotlib.cbook
import numpy as np

from datasets.files import DataError
from datasets.prepare.extract import save_jpeg
from datasets.prepare.pack import Packing, pack
from datasets.sources.folders import USUAL_NAMES
from datasets.sources.videos import read_frames

FRAME_SIZE, SMALL_SIZE = (340, 256), (170, 128)  # width, height
MARGIN = 32  # pixels of texture around the frame, which motion moves in
TEXTURE_SIZE = (340 + 2 * MARGIN, 256 + 2 * MARGIN)
JPEG_QUALITY = 95
LONGEST_DRIFT = 512  # pixels
NOISE = 2.18  # grey levels, with which a frame's JPEG file has 28 KB


def make_dataset(root: Path, folders: list[str], frames: int, source: Path | None) -> None:
    """Videos of so many frames: each a frame folder, in packs of both sizes, and a video file."""
    for folder in folders:
        pictures = make_frames(root / folder, frames, source)
        with av.open(str(root / f"{folder}.mp4"), "w") as container:
            stream = container.add_stream("h264", rate=25)
            (stream.width, stream.height), stream.pix_fmt = FRAME_SIZE, "yuv420p"
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
            container.mux(stream.encode())
    for size in (SMALL_SIZE, FRAME_SIZE):
        pack(Packing(root, USUAL_NAMES, "rgb", size, JPEG_QUALITY, root), 1, False, iter)


def make_frames(folder: Path, frames: int, source: Path | None) -> list[np.ndarray]:
    """Writes a frame folder: the first frames of the video `source`, or a drifting texture."""
    pictures = list(islice(read_frames(source, FRAME_SIZE), frames)) if source else drift(frames)
    if len(pictures) < frames:
        raise DataError(f"{source} has {len(pictures)} frames; {frames} are needed")
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, 1):
        save_jpeg(folder / f"{USUAL_NAMES.rgb.format(number)}.jpg", picture, JPEG_QUALITY)
    return pictures


def drift(frames: int) -> list[np.ndarray]:
    """A textured, noisy plane that drifts up and left by a pixel a frame, and back, BGR."""
    width, height = FRAME_SIZE
    rng = np.random.default_rng(0)
    way = min(frames, LONGEST_DRIFT)
    plane = np.full((height + way, width + way, 3), 128, np.float32)
    for pixels, weight in ((80, 60.0), (20, 25.0), (5, 10.0)):
        cells = (plane.shape[0] // pixels, plane.shape[1] // pixels, 3)
        coarse = rng.normal(0, weight, cells).astype(np.float32)
        plane += cv2.resize(coarse, plane.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    plane = np.clip(plane + rng.normal(0, NOISE, plane.shape), 0, 255).astype(np.uint8)
    starts = [min(n % (2 * way), 2 * way - 1 - n % (2 * way)) for n in range(frames)]
    return [plane[start : start + height, start : start + width] for start in starts]


def photograph() -> np.ndarray:
    """A photograph that comes with matplotlib, as wide as a texture and cut to its height."""
    width, height = TEXTURE_SIZE
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    size = width, round(image.shape[0] * width / image.shape[1])
    top = (size[1] - height) // 2
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)[top : top + height]


def dead_leaves(rng: np.random.Generator) -> np.ndarray:
    """A texture of discs of many sizes that hide each other, as things in natural images do.

    The dead leaves model (Lee, Mumford and Huang, IJCV 2001): radii r of density r^-3.
    """
    width, height = TEXTURE_SIZE
    image = np.full((height, width, 3), 128, np.uint8)
    smallest, largest = 2.0, 80.0
    for _ in range(6000):
        radius = (smallest**-2 + rng.uniform() * (largest**-2 - smallest**-2)) ** -0.5
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = [int(value) for value in rng.integers(20, 236, 3)]
        cv2.circle(image, centre, round(radius), colour, -1, cv2.LINE_AA)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(cv2.GaussianBlur(image + noise, None, 0.8), 0, 255).astype(np.uint8)
