"""S3D (Xie et al., arXiv 1712.04851): torchvision's network, an I3D with separated convolutions."""

from torch import nn
from torchvision.models.video import s3d

from models.backbones.stem import for_channels


def features(in_channels: int) -> nn.Sequential:
    """(N, in_channels, T, 224, 224) -> (N, 1024, T/8, 7, 7)."""
    layers = s3d().features
    layers[0][0][0] = for_channels(layers[0][0][0], in_channels)
    return layers
