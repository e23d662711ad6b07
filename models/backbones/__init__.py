"""The backbones: what the late-temporal networks need to know about each, as a table.

To add one, write `models/backbones/x.py` and a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.backbones import i3d, mvit, r2plus1d, resnext3d, s3d, swin3d, tiny3d


@dataclass(frozen=True)
class Backbone:
    """A single-pathway backbone.

    Attributes:
        features: input channels -> network from clips to features (N, width, T/time_stride, h, w).
        width: channels of the features.
        time_stride: clip frames for one temporal token.
        reduction_block: channels in -> the block that narrows the features (FRAB, FRMB).
        reduced_width: channels behind that block.
        last_block: name of the block inside `features` that FRMB replaces.
        last_block_in: channels that this block takes.
        only_frames: the one clip length that it takes, where there is just one.
    """

    features: Callable[[int], nn.Module]
    width: int
    time_stride: int
    reduction_block: Callable[[int], nn.Module] | None = None
    reduced_width: int | None = None
    last_block: str | None = None
    last_block_in: int | None = None
    only_frames: int | None = None


BACKBONES = {
    "resneXt3D": Backbone(
        resnext3d.features,
        width=2048,
        time_stride=16,
        reduction_block=resnext3d.reduction_block,
        reduced_width=512,
        last_block="7.2",
        last_block_in=2048,
    ),
    "I3D": Backbone(
        i3d.features,
        width=1024,
        time_stride=8,
        reduction_block=i3d.reduction_block,
        reduced_width=512,
        last_block="15",
        last_block_in=832,
    ),
    "r2plus1d": Backbone(r2plus1d.features_34, width=512, time_stride=8),
    "r2plus1d_18": Backbone(r2plus1d.features_18, width=512, time_stride=8),
    "r3d_18": Backbone(r2plus1d.features_r3d, width=512, time_stride=8),
    "s3d": Backbone(s3d.features, width=1024, time_stride=8),
    "swin3d_t": Backbone(swin3d.Swin3D, width=768, time_stride=2),
    "mvit_v2_s": Backbone(mvit.MViT, width=768, time_stride=2, only_frames=mvit.FRAMES),
    "tiny3D": Backbone(
        tiny3d.features,
        width=128,
        time_stride=2,
        reduction_block=tiny3d.reduction_block,
        reduced_width=64,
        last_block="5",
        last_block_in=64,
    ),
}
