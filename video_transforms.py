"""Clip transforms: uint8 (T, H, W, C) in and out, C = 3 (RGB) or 2 (flow x, y).

A random transform takes a NumPy generator and treats every frame of a clip alike.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SCALE_RATIOS = (1.0, 0.875, 0.75, 0.66)

# How a clip is flipped: pixels left to right (PLAIN); flow likewise, with its x component inverted
# (INVERTED); or not at all, because a flipped clip shows another action (NO_FLIP).
PLAIN, INVERTED, NO_FLIP = "plain", "inverted", "none"


class Compose:
    """The transforms, one after the other."""

    def __init__(self, *transforms: Transform):
        self.transforms = transforms

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            clip = transform(clip, rng)
        return clip


class MultiScaleCornerCrop:
    """Random crop at one of 13 fixed positions, resized to `size` x `size` (arXiv 1507.02159).

    Height and width are ratios of the shorter side, at most one ratio apart. The positions
    follow from the crop's own size, so that every crop lies inside the frame.
    """

    def __init__(self, size: int, ratios: Sequence[float] = SCALE_RATIOS):
        self.size = size
        self.ratios = tuple(ratios)
        steps = range(len(self.ratios))
        self.pairs = [(i, j) for i in steps for j in steps if abs(i - j) <= 1]

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A random (top, left, height, width) inside a frame of that height and width."""
        i, j = self.pairs[rng.integers(len(self.pairs))]
        side = min(height, width)
        crop_h, crop_w = int(side * self.ratios[i]), int(side * self.ratios[j])
        positions = corner_positions(height, width, crop_h, crop_w)
        top, left = positions[rng.integers(len(positions))]
        return top, left, crop_h, crop_w

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        top, left, height, width = self.box(*clip.shape[1:3], rng)
        crop = clip[:, top : top + height, left : left + width]
        out = np.empty((len(clip), self.size, self.size, clip.shape[3]), np.uint8)
        for source, target in zip(crop, out, strict=True):
            cv2.resize(source, (self.size, self.size), dst=target)
        return out


def corner_positions(height: int, width: int, crop_h: int, crop_w: int) -> list[tuple[int, int]]:
    """The 13 (top, left) positions: a 3x3 grid and the four points half-way to its corners."""
    quarters = [(y, x) for y in (0, 2, 4) for x in (0, 2, 4)]
    quarters += [(y, x) for y in (1, 3) for x in (1, 3)]
    return [(y * (height - crop_h) // 4, x * (width - crop_w) // 4) for y, x in quarters]


class RandomHorizontalFlip:
    """Flips the clip with probability 0.5, PLAIN or INVERTED; never with NO_FLIP."""

    def __init__(self, flip: str):
        self.flip = flip

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.random() < 0.5
        return flip_clip(clip, self.flip) if chosen and self.flip != NO_FLIP else clip


def flip_clip(clip: np.ndarray, flip: str) -> np.ndarray:
    """The clip, left and right exchanged.

    Flipped flow images show a motion to the left as one to the right only if the x component
    (channel 0) is inverted too, to 255 - x: INVERTED.
    """
    flipped = np.empty_like(clip, order="C")
    for source, target in zip(clip, flipped, strict=True):
        cv2.flip(source, 1, dst=target)  # ten times as fast as copying clip[:, :, ::-1]
    if flip == INVERTED:
        np.subtract(255, flipped[..., 0], out=flipped[..., 0])
    return flipped


class ClipAugmentation:
    """RandAugment, colour jitter and random erasing of clips, a function of (seed, epoch, video).

    All frames of a video's clips get the same operations with the same numbers, drawn on the CPU;
    torch's random numbers stay as they are. It computes where the clips lie.

    Args:
        fill: a value for each channel, 0..255, of pixels that come from outside or are erased.
        rand_augment: magnitude, 0..30, of two operations (arXiv 1909.13719); None: none.
        random_erasing: probability that a box is erased (arXiv 1708.04896).
        color_jitter: strength s: brightness, contrast and saturation change by a factor from 1 - s
            to 1 + s, the hue by at most s / 4 of a turn (proportions of arXiv 2002.05709).
    """

    def __init__(
        self,
        seed: int,
        fill: Sequence[int],
        rand_augment: int | None = None,
        random_erasing: float = 0.0,
        color_jitter: float = 0.0,
    ):
        self.seed = seed
        self.transforms: list[Callable[[Tensor], Tensor]] = []
        if color_jitter:
            jitter = v2.ColorJitter(*[color_jitter] * 3, color_jitter / 4)
            self.transforms.append(lambda frames: as_one_picture(jitter, frames))
        if rand_augment is not None:
            self.transforms.append(ClipRandAugment(magnitude=rand_augment, fill=list(fill)))
        if random_erasing:
            self.transforms.append(v2.RandomErasing(random_erasing, value=list(fill)))

    def __call__(self, clips: Tensor, epoch: int, video: int) -> Tensor:
        """A video's clips, uint8 (S, T, H, W, C) -> the same, augmented."""
        (drawn,) = np.random.SeedSequence((self.seed, epoch, video)).generate_state(1)
        frames = clips.flatten(0, 1).permute(0, 3, 1, 2)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(drawn))
            for transform in self.transforms:
                frames = transform(frames)
        return frames.permute(0, 2, 3, 1).contiguous().unflatten(0, clips.shape[:2])


class ClipRandAugment(v2.RandAugment):
    """torchvision's, with one draw for all frames (T, C, H, W).

    Torchvision takes the statistics that these operations need of each frame for itself, which
    makes a clip flicker; here they are the clip's.
    """

    OF_STATISTICS = ("AutoContrast", "Contrast", "Equalize")

    def _apply_image_or_video_transform(
        self, image: Tensor, transform_id: str, *args, **options
    ) -> Tensor:
        def apply(picture: Tensor) -> Tensor:
            return parent(picture, transform_id, *args, **options)

        parent = super()._apply_image_or_video_transform
        return as_one_picture(apply, image) if transform_id in self.OF_STATISTICS else apply(image)


def as_one_picture(transform: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """A transform of pixels' values applied to all frames (T, C, H, W) as one picture."""
    picture = transform(frames.transpose(0, 1).flatten(1, 2))  # (C, T * H, W)
    return picture.unflatten(1, (len(frames), -1)).transpose(0, 1)


class CenterCrop:
    """The central `size` x `size` pixels."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, clip: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        return crop_at(clip, *crop_corners(*clip.shape[1:3], self.size)[0], self.size)


def crop_corners(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """(top, left) of the five test crops: centre, then the corners row by row."""
    bottom, right = height - size, width - size
    return [(bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)]


def crop_at(clip: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """A view of `size` x `size` pixels of every frame."""
    return clip[:, top : top + size, left : left + size]


def views(clip: np.ndarray, size: int, ten_crop: bool, flip: str) -> Iterator[np.ndarray]:
    """Every crop of a clip (T, H, W, C), uint8 (T, size, size, C), without copying a crop.

    Args:
        ten_crop: centre and corners, then the same of the flipped frames; or the centre alone.
        flip: how clips are flipped; with NO_FLIP there are the first five alone.
    """
    corners = crop_corners(*clip.shape[1:3], size)
    if not ten_crop:
        yield crop_at(clip, *corners[0], size)
        return
    for picture in (clip,) if flip == NO_FLIP else (clip, flip_clip(clip, flip)):
        for top, left in corners:
            yield crop_at(picture, top, left, size)


def count_crops(ten_crop: bool, flip: str) -> int:
    """How many views of a clip `views` yields."""
    return (5 if flip == NO_FLIP else 10) if ten_crop else 1


@cache
def _row(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """A value for each channel of a row of pixels, float32 (width * C,).

    It is copied to a device once: for each such copy a GPU is waited for.
    """
    return torch.tensor(values, dtype=torch.float32, device=device).repeat(width)


class Normalize:
    """uint8 clips (N, T, H, W, C) -> float32 network input (N, C, T, H, W), on their device.

    Pixels are scaled from 0..255 to 0..`value_range`, then standardised per channel.
    `channels_last`: leave a pixel's channels side by side in memory, as they come.
    """

    def __init__(
        self,
        value_range: float,
        mean: Sequence[float],
        std: Sequence[float],
        channels_last: bool = False,
    ):
        self.channels_last = channels_last
        self.scale = 255 / value_range
        self.mean, self.std = mean, std

    def __call__(self, clips: Tensor) -> Tensor:
        x = clips.to(torch.float32)
        rows = x.flatten(3)  # (N, T, H, W * C): long rows, so that the arithmetic is fast
        mean, std = (_row(tuple(v), clips.shape[3], clips.device) for v in (self.mean, self.std))
        rows.div_(self.scale).sub_(mean).div_(std)
        x = x.permute(0, 4, 1, 2, 3)
        return x if self.channels_last else x.contiguous()
