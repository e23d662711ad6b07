"""Temporal tokens in another order: does a network need to know when something happened?"""

import argparse

import numpy as np
import torch
from torch import Tensor

from models import ArchError, VideoNet

TIME_ORDERS = ("normal", "reversed", "shuffled")
SHUFFLE_SEED = 0


def time_order(text: str) -> str:
    """argparse type: one of TIME_ORDERS, or the tokens' places, such as 4,5,6,7,0,1,2,3."""
    if text in TIME_ORDERS:
        return text
    places = text.split(",")
    if not text.isascii() or sorted(places) != sorted(map(str, range(len(places)))):
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(TIME_ORDERS)} or all tokens' places from 0, like 1,0,2; not {text}"
        )
    return text


class TimeOrder:
    """Puts tokens (N, T', ...) in an order that `time_order` admits.

    "shuffled" draws a permutation for each clip, one after the other: the clips' order decides
    which is whose, and not how they are batched. Raises ArchError for places of another number.
    """

    def __init__(self, order: str):
        self.order, self.rng = time_order(order), np.random.default_rng(SHUFFLE_SEED)

    def __call__(self, tokens: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(tokens, dict):  # two pathways
            return {path: self(own) for path, own in tokens.items()}
        if self.order == "normal":
            return tokens
        if self.order == "reversed":
            return tokens.flip(1)
        clips, length = tokens.shape[:2]
        if self.order == "shuffled":
            places = np.stack([self.rng.permutation(length) for _ in range(clips)])
            rows = torch.arange(clips, device=tokens.device)[:, None]
            return tokens[rows, torch.from_numpy(places).to(tokens.device)]
        chosen = [int(place) for place in self.order.split(",")]
        if len(chosen) != length:
            raise ArchError(f"an order of {len(chosen)} places for {length} tokens")
        return tokens[:, chosen]


def set_time_order(model: VideoNet, order: str) -> None:
    """Gives a network's temporal head its tokens in another order from now on; for tests.

    What a head sees always passes `classify`, whether it comes from clips or from a cache.
    """
    if order != "normal":
        classify, reorder = model.classify, TimeOrder(order)
        model.classify = lambda tokens: classify(reorder(tokens))
