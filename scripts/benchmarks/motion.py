"""Frame pairs with known motion: textures sampled at places that follow from a formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import cv2
import matplotlib.cbook
import numpy as np
import torch
import torch.nn.functional as F

from datasets.lists import DataError
from datasets.sources.videos import read_frames

WIDTH, HEIGHT = 340, 256
MARGIN = 32  # pixels of texture around the frame, from which what moves in comes


@dataclass(frozen=True)
class Motion:
    """A similarity about the frame's centre: turn, grow, then shift; x right, y down."""

    kind: str
    dx: float = 0.0
    dy: float = 0.0
    degrees: float = 0.0
    zoom: float = 1.0

    @property
    def matrix(self) -> np.ndarray:
        """2x2, float64."""
        angle = np.radians(self.degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        return self.zoom * np.array([[cos, -sin], [sin, cos]])


MOTIONS = {
    "(1, 0)": Motion("short shifts", 1, 0),
    "(0.5, -0.25)": Motion("short shifts", 0.5, -0.25),
    "(-3.5, 2.25)": Motion("short shifts", -3.5, 2.25),
    "(8, 5)": Motion("long shifts", 8, 5),
    "(-15, 10)": Motion("long shifts", -15, 10),
    "1 degree": Motion("turns", degrees=1),
    "-4 degrees": Motion("turns", degrees=-4),
    "2 % larger": Motion("zooms", zoom=1.02),
    "6 % smaller": Motion("zooms", zoom=0.94),
}


@dataclass(frozen=True)
class Pair:
    """Two frames, BGR uint8 (H, W, 3), and the truth: displacement (2, H, W), where `seen`."""

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    seen: np.ndarray  # bool (H, W): the point lies in the second frame, too

    def error(self, flow: np.ndarray) -> float:
        """Mean end-point error in pixels of an estimate (2, H, W)."""
        return float(np.hypot(*(flow - self.flow))[self.seen].mean())


def make_pair(texture: np.ndarray, motion: Motion) -> Pair:
    """Samples a texture (HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3) at the frames' two places.

    The first frame's pixel x shows the texture at x, so does the second's pixel M(x): it shows,
    at y, the texture at the inverse of M. Bicubic, in float64, so that no place is rounded.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])[:, None, None]
    offset = np.array([motion.dx, motion.dy])[:, None, None]
    places = np.stack([x, y])
    moved = np.einsum("ij,jhw->ihw", motion.matrix, places - centre) + centre + offset
    back = np.einsum("ij,jhw->ihw", np.linalg.inv(motion.matrix), places - centre - offset)
    limits = np.array([WIDTH - 1, HEIGHT - 1])[:, None, None]
    return Pair(
        first=_sample(texture, places + MARGIN),
        second=_sample(texture, back + centre + MARGIN),
        flow=(moved - places).astype(np.float32),
        seen=((moved >= 0) & (moved <= limits)).all(0),
    )


def _sample(texture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The texture, uint8 (h, w, 3), at places (2, H, W) in its pixels; beyond, its border."""
    height, width = texture.shape[:2]
    image = torch.from_numpy(texture).permute(2, 0, 1)[None].double()
    scale = np.array([2 / (width - 1), 2 / (height - 1)])[:, None, None]
    grid = torch.from_numpy(np.moveaxis(places * scale - 1, 0, -1))[None]
    values = F.grid_sample(image, grid, "bicubic", "border", align_corners=True)
    return values[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def as_texture(image: np.ndarray) -> np.ndarray:
    """An image's middle, of the texture's shape, shrunk or enlarged to fill it."""
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    scale = max(width / image.shape[1], height / image.shape[0])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def built_in_textures() -> dict[str, np.ndarray]:
    """A photograph that comes with matplotlib, and one made by formula: both are everywhere."""
    return {"photo": as_texture(_photo()), "leaves": dead_leaves(np.random.default_rng(0))}


def _photo() -> np.ndarray:
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)


def dead_leaves(rng: np.random.Generator) -> np.ndarray:
    """Discs of many sizes that hide each other, as things in natural images do.

    The dead leaves model (Lee, Mumford and Huang, IJCV 2001): radii r of density r^-3.
    """
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    image = np.full((height, width, 3), 128, np.uint8)
    smallest, largest = 2.0, 80.0
    for _ in range(6000):
        share = rng.uniform()
        radius = (smallest**-2 + share * (largest**-2 - smallest**-2)) ** -0.5
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = [int(value) for value in rng.integers(20, 236, 3)]
        cv2.circle(image, centre, round(radius), colour, -1, cv2.LINE_AA)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(cv2.GaussianBlur(image + noise, None, 0.8), 0, 255).astype(np.uint8)


def read_textures(images: list[Path], videos: list[Path]) -> dict[str, np.ndarray]:
    """Textures from image files and from the frames 1, 101 and 201 of videos, by name."""
    textures = {}
    for path in images:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"cannot read the image {path}")
        textures[path.name] = as_texture(image)
    for path in videos:
        for number, frame in enumerate(islice(video_frames(path), 0, 201, 100)):
            textures[f"{path.name} {1 + 100 * number}"] = as_texture(frame)
    return textures


def video_frames(path: Path, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
    """A video's frames, BGR, of a size (width, height) or its own; errors name the file."""
    try:
        if size is None:
            with av.open(str(path)) as container:
                size = container.streams.video[0].width, container.streams.video[0].height
        yield from read_frames(path, size)
    except (DataError, av.FFmpegError, OSError, IndexError) as error:
        raise DataError(f"cannot read the video {path}: {error}") from None
