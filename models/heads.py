"""The temporal heads: how tokens (N, T, D) become a class vector. One small class each."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.bert import BERT
from models.late_temporal import LateTemporalNet


class AverageNet(LateTemporalNet):
    """The mean over time."""

    def add_head(self) -> int:
        return self.width

    def temporal(self, tokens: Tensor) -> Tensor:
        return self.dropout(tokens.mean(dim=1))  # (N, D)


class Bert10Net(LateTemporalNet):
    """BERT: the output of the class token."""

    def add_head(self) -> int:
        self.bert = self.make_bert()
        return self.width

    def make_bert(self, **initialisation: float) -> BERT:
        spec = self.spec
        shape = {"layers": spec.layers, "heads": spec.heads, "class_token": spec.class_token}
        return BERT(self.width, self.num_tokens, **shape, **initialisation)

    def prepare(self, tokens: Tensor) -> Tensor:
        return tokens

    def temporal(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.bert(self.prepare(tokens)))  # (N, D)

    def token_attention(self, tokens: Tensor) -> Tensor:
        return self.bert.attention_weights(self.prepare(tokens))


class Bert2Net(Bert10Net):
    """BERT on L2-normalised tokens, with its own initialisation."""

    def make_bert(self) -> BERT:
        return super().make_bert(token_std=self.width**-0.5, linear_std=0.02)

    def prepare(self, tokens: Tensor) -> Tensor:
        return F.normalize(tokens, dim=-1)


class LstmNet(LateTemporalNet):
    """The last step of a two-layer LSTM."""

    def add_head(self) -> int:
        self.lstm = nn.LSTM(self.width, self.spec.hidden, num_layers=2, batch_first=True)
        return self.spec.hidden

    def temporal(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.lstm(tokens)[0][:, -1])  # (N, hidden)


class ConcatenationNet(LateTemporalNet):
    """All tokens side by side, channel-major (c0t0 c0t1 ...), through a linear layer."""

    def add_head(self) -> int:
        self.linear = nn.Linear(self.width * self.num_tokens, self.spec.hidden)
        return self.spec.hidden

    def temporal(self, tokens: Tensor) -> Tensor:
        flat = tokens.transpose(1, 2).flatten(1)  # (N, D * T)
        return self.linear(self.dropout(flat))  # (N, hidden)


class FlatNet(LateTemporalNet):
    """All tokens side by side, with no layer between them and the classifier."""

    def add_head(self) -> int:
        return self.width * self.num_tokens

    def temporal(self, tokens: Tensor) -> Tensor:
        return self.dropout(tokens.flatten(1))  # (N, T * D)


class NonLocalBlock(nn.Module):
    """x + W_z(softmax(theta(x)^T phi(x) / sqrt(positions)) g(x)); the identity when new.

    Wang et al., arXiv 1711.07971, with batch norm on its output.
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
            layer(x).flatten(2).transpose(1, 2)[:, None]  # (N, 1 head, THW, channels)
            for layer in (self.theta, self.phi, self.g)
        )
        positions = query.shape[2]
        out = F.scaled_dot_product_attention(query, key, value, scale=positions**-0.5)
        return x + self.W_z(out.transpose(2, 3).reshape(x.shape))


class NonLocalConcatenationNet(ConcatenationNet):
    """Concatenation after a non-local block over the feature maps."""

    encodes = "maps"

    def add_head(self) -> int:
        self.NLB = NonLocalBlock(self.width)
        return super().add_head()

    def encode(self, clips: Tensor) -> Tensor:
        """The maps (N, D, T', h, w): the block learns with the head."""
        return self.reduced_features(clips)

    def tokens(self, encoded: Tensor) -> Tensor:
        return self.spatial_pool(self.NLB(encoded))
