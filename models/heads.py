"""The temporal heads: how tokens (N, T, D) become a class vector. One small class each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bert import BERT, LayerNorm, MultiHeadAttention
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
        start = {"zero_start": spec.zero_start} | initialisation
        tokens = self.num_tokens // spec.streams
        return BERT(self.width, tokens, streams=spec.streams, **shape, **start)

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


class AttentiveNet(LateTemporalNet):
    """Attentive pooling with one learned query (V-JEPA's probe, arXiv 2404.08471).

    The query attends over the tokens; what it gathers, and a feed-forward layer, are added to the
    tokens' mean. The query and both outputs start at zero, so that a new head averages.
    """

    def add_head(self) -> int:
        self.query = nn.Parameter(torch.zeros(1, 1, self.width))
        self.attend = nn.MultiheadAttention(self.width, self.spec.heads, batch_first=True)
        self.norm_tokens, self.norm_class = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
        wide = 4 * self.width
        self.mlp = nn.Sequential(
            nn.Linear(self.width, wide), nn.GELU(), nn.Linear(wide, self.width)
        )
        for layer in (self.attend.out_proj, self.mlp[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return self.width

    def temporal(self, tokens: Tensor) -> Tensor:
        query, seen = self.query.repeat(len(tokens), 1, 1), self.norm_tokens(tokens)
        gathered = self.attend(query, seen, seen, need_weights=False)[0][:, 0]
        vector = tokens.mean(dim=1) + gathered
        return self.dropout(vector + self.mlp(self.norm_class(vector)))  # (N, D)


class EfficientProbeNet(LateTemporalNet):
    """Efficient probing (arXiv 2506.10178): several learned queries attend to the tokens directly,
    without projections of queries, keys or outputs; each gathers its share of the channels.

    A new head averages: the queries start at zero, the value projection as the identity.
    """

    def add_head(self) -> int:
        self.queries = nn.Parameter(torch.zeros(self.spec.heads, self.width))
        self.value = nn.Linear(self.width, self.width)
        nn.init.eye_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        return self.width

    def temporal(self, tokens: Tensor) -> Tensor:
        likeness = tokens @ self.queries.T / self.width**0.5  # (N, T, queries)
        values = self.value(tokens).unflatten(-1, (len(self.queries), -1))
        gathered = torch.einsum("ntq,ntqd->nqd", likeness.softmax(dim=1), values)
        return self.dropout(gathered.flatten(1))  # (N, D)


class StepNet(LateTemporalNet):
    """Self-attentive temporal embedding probing (STEP, arXiv 2503.24298): a learned position for
    each token, one class token, and an attention block without skip connection or feed-forward
    layer, whose class token's output is normalised."""

    def add_head(self) -> int:
        self.positions = nn.Parameter(torch.empty(1, self.num_tokens, self.width))
        self.class_token = nn.Parameter(torch.empty(1, 1, self.width))
        for parameter in (self.positions, self.class_token):
            nn.init.normal_(parameter, std=0.02)
        self.attend = MultiHeadAttention(self.width, self.spec.heads)
        self.norm = LayerNorm(self.width)
        return self.width

    def temporal(self, tokens: Tensor) -> Tensor:
        start = self.class_token.expand(len(tokens), -1, -1)
        x = torch.cat([start, tokens + self.positions], dim=1)  # (N, 1 + T, D)
        return self.dropout(self.norm(self.attend(x)[:, 0]))  # (N, D)


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

    def encode(self, inputs: Tensor) -> Tensor:
        """The maps (N, D, T', h, w): the block learns with the head."""
        return self.maps_below(inputs) if self.ends_at else self.reduced_features(inputs)

    def tokens(self, encoded: Tensor) -> Tensor:
        return self.spatial_pool(self.NLB(encoded))
