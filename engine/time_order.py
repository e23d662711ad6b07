"""Temporal tokens in another order: does a network need to know when something happened?"""

import numpy as np
import torch
from torch import Tensor, nn

TIME_ORDERS = ("normal", "reversed", "shuffled")
SHUFFLE_SEED = 0


class TimeOrder:
    """Puts tokens (N, T', ...) in an order of TIME_ORDERS.

    "shuffled" draws a permutation for each clip, one after the other: the clips' order decides
    which is whose, and not how they are batched.
    """

    def __init__(self, order: str):
        if order not in TIME_ORDERS:
            raise ValueError(f"unknown order '{order}'; choose from {', '.join(TIME_ORDERS)}")
        self.order, self.rng = order, np.random.default_rng(SHUFFLE_SEED)

    def __call__(self, tokens: Tensor) -> Tensor:
        if self.order == "reversed":
            return tokens.flip(1)
        if self.order == "shuffled":
            clips, length = tokens.shape[:2]
            places = np.stack([self.rng.permutation(length) for _ in range(clips)])
            rows = torch.arange(clips, device=tokens.device)[:, None]
            return tokens[rows, torch.from_numpy(places).to(tokens.device)]
        return tokens


class TimeOrdered(nn.Module):
    """A network whose temporal head gets the tokens in another order; for tests."""

    def __init__(self, model: nn.Module, order: str):
        super().__init__()
        self.model, self.reorder = model, TimeOrder(order)

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (N, C, T, H, W) -> logits (N, classes)."""
        tokens = self.model.forward_tokens(clips)
        if isinstance(tokens, dict):  # two pathways
            tokens = {path: self.reorder(own) for path, own in tokens.items()}
        else:
            tokens = self.reorder(tokens)
        return self.model.classify(tokens)


def in_time_order(model: nn.Module, order: str) -> nn.Module:
    """The network itself, or with its tokens in another order."""
    return model if order == "normal" else TimeOrdered(model, order)
