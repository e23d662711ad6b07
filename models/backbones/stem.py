"""A stem for another number of input channels: torchvision's networks know RGB only."""

from torch import nn


def for_channels(conv: nn.Conv3d, in_channels: int) -> nn.Conv3d:
    """`conv` itself if it takes `in_channels`, else a new one that does, alike otherwise."""
    if conv.in_channels == in_channels:
        return conv
    return nn.Conv3d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        bias=conv.bias is not None,
    )
