"""Tiny3D: a small 3D residual network for trying, teaching and tests (0.2 M parameters).

Only two convolutions look along time, so a token sees 5 of the 16 frames: what happened
*when* has to be worked out by the temporal head. They pad by repeating the border, because
zeros would tell the first token from the last and so give the order away.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import Backbone, InputSpec, Pathway, droppable
from models.backbones.resnext3d import conv3d, init_kaiming


class ResidualBlock(nn.Module):
    """3x3 in space (and `time` in time) -> 1x3x3, with a projected shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride=(1, 1, 1), time: int = 1):
        super().__init__()
        mode = "zeros" if time == 1 else "replicate"
        self.conv1 = conv3d(in_channels, out_channels, (time, 3, 3), stride, padding_mode=mode)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = conv3d(out_channels, out_channels, (1, 3, 3))
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.drop = droppable()
        projection = conv3d(in_channels, out_channels, 1, stride)
        self.downsample = nn.Sequential(projection, nn.BatchNorm3d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.drop(self.bn2(self.conv2(out)))
        return F.relu(out + self.downsample(x), inplace=True)


def features(in_channels: int) -> nn.Sequential:
    """(N, in_channels, 16, 56, 56) -> (N, 128, 8, 4, 4)."""
    return init_kaiming(
        nn.Sequential(
            conv3d(in_channels, 16, (3, 5, 5), (1, 2, 2), padding_mode="replicate"),
            nn.BatchNorm3d(16),
            nn.ReLU(inplace=True),
            ResidualBlock(16, 32, stride=(2, 2, 2), time=3),
            ResidualBlock(32, 64, stride=(1, 2, 2)),
            ResidualBlock(64, 128, stride=(1, 2, 2)),
        )
    )


def reduction_block(in_channels: int) -> ResidualBlock:
    """in_channels -> 64 channels; takes the place of the last block, stride included."""
    return init_kaiming(ResidualBlock(in_channels, 64, stride=(1, 2, 2)))


# fmt: off
ROWS = (
    Backbone("tiny3D", "tiny3D{}f", features,
             (Pathway(128, 2, reduction_block, 64, last_block="5", last_block_in=64),),
             {"rgb": InputSpec(56, (85, 64), 1, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
              "flow": InputSpec(56, (85, 64), 1, (0.5, 0.5), (0.125, 0.125))},
             stages={"block2": 4, "block3": 5}),
)
# fmt: on
