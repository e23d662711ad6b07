"""MViTv2, small (Li et al., arXiv 2112.01526): torchvision's network."""

from torch import Tensor, nn
from torchvision.models.video import mvit_v2_s

from models.backbones.stem import for_channels

FRAMES = 16  # its relative positions, and so its weights, are those of one clip length


class MViT(nn.Module):
    """Everything before torchvision's classifier, under torchvision's names.

    MViT classifies its class token, the other heads need tokens along time: the features are
    the patch tokens, shifted together so that their mean is the class token. So the average
    head answers what torchvision's network does, and the tokens still differ as the patches do.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        net = mvit_v2_s()
        self.conv_proj = for_channels(net.conv_proj, in_channels)
        self.pos_encoding, self.blocks, self.norm = net.pos_encoding, net.blocks, net.norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 16, 224, 224) -> (N, 768, 8, 7, 7)."""
        x = self.conv_proj(x)  # (N, 96, 8, 56, 56)
        size = tuple(x.shape[2:])
        x = self.pos_encoding(x.flatten(2).transpose(1, 2))  # (N, 1 + 8*56*56, 96)
        for block in self.blocks:
            x, size = block(x, size)
        class_token, patches = self.norm(x).split([1, x.shape[1] - 1], dim=1)
        shifted = patches - patches.mean(dim=1, keepdim=True) + class_token
        return shifted.transpose(1, 2).unflatten(2, size)
