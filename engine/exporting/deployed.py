"""A trained network with all that stands around it in a test: uint8 frames -> probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import VideoNet
from video_transforms import INVERTED, NO_FLIP, count_crops, crop_corners

COEFFICIENT_BITS = 11  # of OpenCV's bilinear weights


class Deployed(nn.Module):
    """What a test does to a clip, as one module that torch.export takes.

    Frames are resized, cropped and normalised, the crops' logits are averaged, and softmax gives
    probabilities.

    Args:
        network: in evaluation mode from here on.
        sizes: (width, height) that frames are resized to, one after the other; the last is the
            one that the network's crops are taken from.
        ten_crop: average over centre and corners, and the same flipped; or the centre alone.
        flip: how clips are flipped, see video_transforms; with NO_FLIP there are five crops.
    """

    def __init__(
        self, network: VideoNet, sizes: Sequence[tuple[int, int]], ten_crop: bool, flip: str
    ):
        super().__init__()
        expected = network.spec.input
        self.network = network.eval()
        self.sizes, self.ten_crop, self.flip = tuple(sizes), ten_crop, flip
        self.crops = count_crops(ten_crop, flip)
        self.scale = 255 / expected.value_range
        self.register_buffer("mean", torch.tensor(expected.mean), persistent=False)
        self.register_buffer("std", torch.tensor(expected.std), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, T, H, W, C) of any H and W -> probabilities float32 (N, classes)."""
        for size in self.sizes:
            frames = resize_frames(frames, size)
        views = torch.stack(self.views(frames), dim=1).flatten(0, 1)  # (N * crops, T, s, s, C)
        inputs = views.float().div(self.scale).sub(self.mean).div(self.std)
        logits = self.network(inputs.permute(0, 4, 1, 2, 3).contiguous())
        return logits.unflatten(0, (-1, self.crops)).mean(dim=1).softmax(dim=1)

    def views(self, frames: Tensor) -> list[Tensor]:
        """Every crop, in the order of `video_transforms.views`."""
        width, height = self.sizes[-1]
        size = self.network.spec.input.crop
        corners = crop_corners(height, width, size)
        pictures = [frames]
        if not self.ten_crop:
            corners = corners[:1]
        elif self.flip != NO_FLIP:
            flipped = frames.flip(3)
            if self.flip == INVERTED:
                flipped = torch.cat([255 - flipped[..., :1], flipped[..., 1:]], dim=-1)
            pictures.append(flipped)
        return [p[:, :, y : y + size, x : x + size] for p in pictures for y, x in corners]


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of uint8 (N, T, H, W, C) to (width, height), in OpenCV's fixed-point
    arithmetic: fewer than five values in a thousand differ from `cv2.resize`, by one level, and
    frames of that size stay as they are."""
    (left, right, near, far), (top, bottom, upper, lower) = (
        _taps(length, wanted, frames.device)
        for length, wanted in zip((frames.shape[3], frames.shape[2]), size, strict=True)
    )
    near, far = near[:, None], far[:, None]
    upper, lower = upper[:, None, None], lower[:, None, None]
    rows = frames[:, :, :, left] * near + frames[:, :, :, right] * far  # int32
    rows = rows // 16
    picture = upper * rows[:, :, top] // 65536 + lower * rows[:, :, bottom] // 65536
    return ((picture + 2) // 4).to(torch.uint8)


def _taps(length: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each of `wanted` pixels: the two of `length` it lies between, and their int32 weights."""
    place = (torch.arange(wanted, dtype=torch.float64, device=device) + 0.5) * (length / wanted)
    place = place - 0.5
    first = place.floor()
    share = place.float() - first.float()
    inside = (first >= 0) & (first < length - 1)
    share = torch.where(inside, share, torch.zeros_like(share))
    first = first.to(torch.int64).clamp(0, length - 1)
    second = (first + 1).clamp(max=length - 1)
    one = 1 << COEFFICIENT_BITS
    near, far = ((s * one).round().to(torch.int32) for s in (1 - share, share))
    return first, second, near, far
