"""Video Swin Transformer, tiny (Liu et al., arXiv 2106.13230): torchvision's network."""

from torch import Tensor, nn
from torchvision.models.video import swin3d_t

from models.backbones.stem import for_channels


class Swin3D(nn.Module):
    """Everything before torchvision's pooling, under torchvision's names."""

    def __init__(self, in_channels: int):
        super().__init__()
        net = swin3d_t()
        self.patch_embed, self.features, self.norm = net.patch_embed, net.features, net.norm
        self.patch_embed.proj = for_channels(self.patch_embed.proj, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, T, 224, 224) -> (N, 768, T/2, 7, 7)."""
        x = self.norm(self.features(self.patch_embed(x)))  # (N, T/2, 7, 7, 768)
        return x.permute(0, 4, 1, 2, 3)
