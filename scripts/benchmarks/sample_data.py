"""Data to measure with: a small dataset as frame folders, packs and video files."""

from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from datasets.lists import DataError
from datasets.prepare.extract import save_jpeg
from datasets.prepare.pack import Packing, pack
from datasets.sources.folders import FrameNames
from datasets.sources.videos import read_frames

NAMES = FrameNames()
WIDTH, HEIGHT, QUALITY = 340, 256, 95
SMALL = (170, 128)
TARGET_BYTES = 28_000  # of a JPEG file


def make_dataset(root: Path, videos: int, frames: int, source: Path | None) -> list[str]:
    """Fills `root` with videos of so many frames, and returns their folders.

    Each is there as a frame folder, in packs of both sizes, and as a video file.
    """
    folders = [f"video_{number}" for number in range(videos)]
    for folder in folders:
        pictures = make_frames(root / folder, frames, source)
        _write_video(root / f"{folder}.mp4", pictures)
    for size in (SMALL, (WIDTH, HEIGHT)):
        pack(Packing(root, NAMES, "rgb", size, QUALITY, root), 1, False, iter)
    return folders


def make_frames(folder: Path, frames: int, source: Path | None) -> list[np.ndarray]:
    """Writes a frame folder: the beginning of the video `source`, or a texture of 28 KB a frame."""
    pictures = _pictures_of(source, frames) if source else _textures(frames)
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, 1):
        save_jpeg(folder / f"{NAMES.rgb.format(number)}.jpg", picture, QUALITY)
    return pictures


def _pictures_of(source: Path, frames: int) -> list[np.ndarray]:
    pictures = list(islice(read_frames(source, (WIDTH, HEIGHT)), frames))
    if len(pictures) < frames:
        raise DataError(f"{source} has {len(pictures)} frames; {frames} are needed")
    return pictures


def _textures(frames: int) -> list[np.ndarray]:
    """A textured plane that drifts, BGR, with as much noise as TARGET_BYTES needs."""
    rng = np.random.default_rng(0)
    ground = np.zeros((HEIGHT + frames, WIDTH + frames, 3), np.float32)
    for pixels, weight in ((80, 60.0), (20, 25.0), (5, 10.0)):
        cells = (ground.shape[0] // pixels, ground.shape[1] // pixels, 3)
        coarse = rng.normal(0, weight, cells).astype(np.float32)
        ground += cv2.resize(coarse, ground.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 1, ground.shape).astype(np.float32)

    def picture(number: int, noise: float) -> np.ndarray:
        place = np.s_[number : number + HEIGHT, number : number + WIDTH]
        return np.clip(ground[place] + noise * grain[place] + 128, 0, 255).astype(np.uint8)

    low, high = 0.0, 20.0
    for _ in range(12):
        noise = (low + high) / 2
        data = cv2.imencode(".jpg", picture(0, noise), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        low, high = (noise, high) if len(data) < TARGET_BYTES else (low, noise)
    return [picture(number, noise) for number in range(frames)]


def _write_video(path: Path, pictures: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
