"""The paper's BERT over temporal tokens: a class token, learned positions, one pre-norm layer.

Module and parameter names are the reference implementation's checkpoint keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROPOUT = 0.1
KEEP_PROBABILITY = 0.8  # of a token, while training


class LayerNorm(nn.Module):
    """Like `nn.LayerNorm`, but with the unbiased standard deviation, and eps added to it."""

    def __init__(self, width: int):
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(width))
        self.b_2 = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + 1e-6) + self.b_2


class MultiHeadAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.linear_layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))  # q, k, v
        self.output_linear = nn.Linear(width, width)

    def _project(self, x: Tensor) -> list[Tensor]:
        split = (self.heads, x.shape[-1] // self.heads)
        return [layer(x).unflatten(-1, split).transpose(1, 2) for layer in self.linear_layers]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, D), mask (N, 1, 1, T) of the tokens that may be attended -> (N, T, D)."""
        query, key, value = self._project(x)  # (N, heads, T, D/heads) each
        dropout = DROPOUT if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return self.output_linear(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights without dropout or mask, (N, heads, T, T); rows sum to 1."""
        query, key, _ = self._project(x)
        return (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1)


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.w_1 = nn.Linear(width, 4 * width)
        self.w_2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(F.gelu(self.w_1(x), approximate="tanh")))


class TransformerBlock(nn.Module):
    """x + drop(attention(norm(x))), then x + drop(feed-forward(norm(x))), then drop."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = MultiHeadAttention(width, heads)
        self.feed_forward = FeedForward(width)
        self.input_sublayer = nn.ModuleDict({"norm": LayerNorm(width)})  # the reference's keys
        self.output_sublayer = nn.ModuleDict({"norm": LayerNorm(width)})
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.input_sublayer.norm(x), mask))
        x = x + self.dropout(self.feed_forward(self.output_sublayer.norm(x)))
        return self.dropout(x)


class BERT(nn.Module):
    """Temporal tokens -> a class vector.

    Args:
        width: channels of a token, D.
        tokens: number of tokens of a stream, T.
        token_std: standard deviation of the initial class token and positions.
        linear_std: that of the linear layers' weights; None leaves PyTorch's default.
        layers, heads: of the transformer; the paper's best has one layer of 8 heads.
        class_token: without it the class vector is the mean of the tokens' outputs.
        zero_start: the class token is the tokens' mean plus a learned vector, and this vector, its
            position and all output projections start at zero: when new, the class vector is the
            tokens' mean, and the head is one that averages (as residual branches start in ReZero,
            arXiv 2003.04887).
        streams: how many streams' tokens come one after the other, S. Tokens of one time have one
            position in all streams, and a learned vector says which stream they are of: the head
            is told what belongs together, which S x T free positions would have to learn.

    Attributes:
        keep_probability: of each token being attended at all, while training.
    """

    def __init__(
        self,
        width: int,
        tokens: int,
        token_std: float = 0.02,
        linear_std: float | None = None,
        layers: int = 1,
        heads: int = 8,
        class_token: bool = True,
        zero_start: bool = False,
        streams: int = 1,
    ):
        super().__init__()
        self.zero_start = zero_start
        if width % heads:
            raise ValueError(f"{width} channels cannot be split into {heads} heads")
        token = nn.Parameter(torch.empty(1, 1, width)) if class_token else None
        self.register_parameter("clsToken", token)
        positions = nn.Parameter(torch.empty(1, tokens + class_token, width))
        self.embedding = nn.ModuleDict({"learnedPosition": nn.ParameterDict({"pe": positions})})
        vectors = nn.Parameter(torch.empty(1, streams, 1, width)) if streams > 1 else None
        self.register_parameter("streams", vectors)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads) for _ in range(layers)
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.keep_probability = KEEP_PROBABILITY
        self._init_weights(token_std, linear_std)

    def _init_weights(self, token_std: float, linear_std: float | None) -> None:
        if self.clsToken is not None:
            nn.init.normal_(self.clsToken, std=token_std)
        positions = self.embedding.learnedPosition.pe
        nn.init.normal_(positions, std=token_std)
        if self.streams is not None:
            nn.init.normal_(self.streams, std=token_std)
        if linear_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=linear_std)
                    nn.init.zeros_(module.bias)
        if self.zero_start:
            outputs = [
                layer
                for block in self.transformer_blocks
                for layer in (block.attention.output_linear, block.feed_forward.w_2)
            ]
            parameters = [p for layer in outputs for p in layer.parameters()]
            for parameter in (self.clsToken, positions[:, 0], *parameters):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, S * T, D) -> the class token's output (N, D)."""
        x = self._embed(tokens)
        mask = self._draw_mask(tokens) if self.training else None
        for block in self.transformer_blocks:
            x = block(x, mask)
        return x.mean(dim=1) if self.clsToken is None else x[:, 0]

    def attention_weights(self, tokens: Tensor) -> Tensor:
        """(N, T, D) -> the last layer's weights (N, heads, T+1, T+1); row 0: the class token's."""
        x = self._embed(tokens)
        for block in self.transformer_blocks[:-1]:
            x = block(x)
        last = self.transformer_blocks[-1]
        return last.attention.weights(last.input_sublayer.norm(x))

    def _embed(self, tokens: Tensor) -> Tensor:
        if self.clsToken is not None:
            token = self.clsToken.expand(tokens.shape[0], -1, -1)
            if self.zero_start:
                token = token + tokens.mean(dim=1, keepdim=True)
            tokens = torch.cat([token, tokens], dim=1)
        return self.dropout(tokens + self._positions())

    def _positions(self) -> Tensor:
        """What tells the tokens apart, (1, 1 + S * T, D); without a class token (1, S * T, D)."""
        positions = self.embedding.learnedPosition.pe
        if self.streams is None:
            return positions
        start, times = positions.tensor_split([int(self.clsToken is not None)], dim=1)
        return torch.cat([start, (times[:, None] + self.streams).flatten(1, 2)], dim=1)

    def _draw_mask(self, tokens: Tensor) -> Tensor:
        """Which tokens may be attended, (N, 1, 1, T+1); the class token always.

        Without a class token (N, 1, 1, T), and a clip that would lose all its tokens keeps them.
        """
        positions = tokens.shape[1] + (self.clsToken is not None)
        keep = torch.rand(tokens.shape[0], positions, device=tokens.device)
        keep = keep < self.keep_probability
        if self.clsToken is None:
            keep |= ~keep.any(dim=1, keepdim=True)
        else:
            keep[:, 0] = True
        return keep[:, None, None]
