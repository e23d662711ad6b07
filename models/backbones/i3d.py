"""I3D: Inception v1 inflated to 3D (Carreira and Zisserman, arXiv 1705.07750)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import Backbone, FileKind, InputSpec, Pathway, numbered


def same_pads(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]
) -> list[tuple[int, int]]:
    """TensorFlow's "SAME" padding of each axis, (before, after), the smaller half before."""
    pads = []
    for n, k, s in zip(size, kernel, stride, strict=True):
        total = max(k - (n % s or s), 0)
        pads.append((total // 2, total - total // 2))
    return pads


class MaxPoolSame(nn.MaxPool3d):
    """Max pooling with "SAME" zero padding of inputs >= 0; kernel and stride are triples.

    Since no input is negative, what lies outside need not be padded with zeros first: `ceil_mode`
    adds the same windows at the end. An axis of stride 1 needs an odd kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        before = [first for first, _ in same_pads(x.shape[2:], self.kernel_size, self.stride)]
        return F.max_pool3d(x, self.kernel_size, self.stride, before, ceil_mode=True)


class SameConv3d(nn.Conv3d):
    """Convolution with "SAME" zero padding; only one with a stride may need unequal halves."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int):
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            pads = same_pads(x.shape[2:], self.kernel_size, self.stride)
            x = F.pad(x, [pad for pair in reversed(pads) for pad in pair])
        return super().forward(x)


class Unit3D(nn.Module):
    """Convolution with "SAME" padding -> batch norm -> ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv3d = SameConv3d(in_channels, out_channels, kernel, stride)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class Mixed(nn.Module):
    """Four parallel branches, concatenated; `widths` are those of b0, b1a, b1b, b2a, b2b, b3b."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        w0, w1a, w1b, w2a, w2b, w3b = widths
        self.b0 = Unit3D(in_channels, w0)
        self.b1a = Unit3D(in_channels, w1a)
        self.b1b = Unit3D(w1a, w1b, 3)
        self.b2a = Unit3D(in_channels, w2a)
        self.b2b = Unit3D(w2a, w2b, 3)
        self.b3a = MaxPoolSame((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(in_channels, w3b)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, T, H, W) -> (N, w0 + w1b + w2b + w3b, T, H, W)."""
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


def features(in_channels: int) -> nn.Sequential:
    """(N, in_channels, 64, 224, 224) -> (N, 1024, 8, 7, 7)."""
    return nn.Sequential(
        Unit3D(in_channels, 64, kernel=7, stride=2),
        MaxPoolSame((1, 3, 3), (1, 2, 2)),
        Unit3D(64, 64),
        Unit3D(64, 192, kernel=3),
        MaxPoolSame((1, 3, 3), (1, 2, 2)),
        Mixed(192, (64, 96, 128, 16, 32, 32)),
        Mixed(256, (128, 128, 192, 32, 96, 64)),
        MaxPoolSame((3, 3, 3), (2, 2, 2)),
        Mixed(480, (192, 96, 208, 16, 48, 64)),
        Mixed(512, (160, 112, 224, 24, 64, 64)),
        Mixed(512, (128, 128, 256, 24, 64, 64)),
        Mixed(512, (112, 144, 288, 32, 64, 64)),
        Mixed(528, (256, 160, 320, 32, 128, 128)),
        MaxPoolSame((2, 2, 2), (2, 2, 2)),
        Mixed(832, (256, 160, 320, 32, 128, 128)),
        Mixed(832, (384, 192, 384, 48, 128, 128)),
    )


def reduction_block(in_channels: int) -> Mixed:
    """in_channels -> 512 channels, a Mixed module of its own widths."""
    return Mixed(in_channels, (192, 96, 192, 24, 64, 64))


_NAMES = (
    "Conv3d_1a_7x7 - Conv3d_2b_1x1 Conv3d_2c_3x3 - Mixed_3b Mixed_3c - "
    "Mixed_4b Mixed_4c Mixed_4d Mixed_4e Mixed_4f - Mixed_5b Mixed_5c"
)
# fmt: off
ROWS = (
    Backbone("I3D", "I3D{}f", features,
             (Pathway(1024, 8, reduction_block, 512, last_block="15", last_block_in=832),),
             {"rgb": InputSpec(224, (340, 256), 1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
              "flow": InputSpec(224, (340, 256), 1, (0.5, 0.5), (0.5, 0.5))},
             files=FileKind("I3D", ("Conv3d_1a_7x7.conv3d.weight",), numbered(_NAMES),
                            "logits.conv3d", pointwise=True),
             stages={"Mixed_5b": 14, "Mixed_5c": 15}),
)
# fmt: on
