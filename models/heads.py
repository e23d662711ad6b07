"""The temporal heads: how tokens (N, T, D) become a class vector. One small class each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bert import BERT
from models.late_temporal import LateTemporalNet
from models.nonlocal_block import NonLocalBlock


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

    @torch.no_grad()
    def attention(self, clips: Tensor) -> Tensor:
        return self.bert.attention_weights(self.prepare(self.forward_tokens(clips)))


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


class NonLocalConcatenationNet(ConcatenationNet):
    """Concatenation behind a non-local block over the feature maps."""

    encodes = "maps"

    def add_head(self) -> int:
        self.NLB = NonLocalBlock(self.width)
        return super().add_head()

    def encode(self, clips: Tensor) -> Tensor:
        """The maps (N, D, T', h, w): the block learns with the head."""
        return self.reduced_features(clips)

    def tokens(self, encoded: Tensor) -> Tensor:
        return self.spatial_pool(self.NLB(encoded))
