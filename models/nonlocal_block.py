"""Non-local block (Wang et al., arXiv 1711.07971) with batch norm on its output."""

import torch.nn.functional as F
from torch import Tensor, nn


class NonLocalBlock(nn.Module):
    """x + W_z(softmax(theta(x)^T phi(x) / sqrt(positions)) g(x)); the identity when new.

    The weights are scaled by the number of positions, as in the reference implementation.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.g = nn.Conv3d(channels, channels, 1)
        self.W_z = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels))
        self.theta = nn.Conv3d(channels, channels, 1)
        self.phi = nn.Conv3d(channels, channels, 1)
        nn.init.zeros_(self.W_z[1].weight)
        nn.init.zeros_(self.W_z[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, T, H, W) -> the same shape."""
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2)  # (N, THW, channels)
            for layer in (self.theta, self.phi, self.g)
        )
        positions = query.shape[1]
        out = F.scaled_dot_product_attention(query, key, value, scale=positions**-0.5)
        return x + self.W_z(out.transpose(1, 2).reshape(x.shape))
