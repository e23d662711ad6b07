"""Temporal tokens in another order: does a network need to know when something happened?"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from models import ArchError, VideoNet

NORMAL = "normal"
TIME_ORDERS = (NORMAL, "reversed", "shuffled")
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

    "shuffled" draws a permutation for each clip of a video: neither batches nor the number of
    processes decide which. Raises ArchError for places of another number.
    """

    def __init__(self, order: str = NORMAL):
        self.order = time_order(order)
        self.start(0)

    def start(self, video: int) -> None:
        """The next tokens are those of another video, by its place in the list."""
        self.video = video
        self.rngs: dict[str, np.random.Generator] = {}  # a pathway draws what the other draws

    def __call__(self, tokens: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(tokens, dict):  # two pathways
            return {path: self._reorder(own, path) for path, own in tokens.items()}
        return self._reorder(tokens, "")

    def _reorder(self, tokens: Tensor, path: str) -> Tensor:
        if self.order == NORMAL:
            return tokens
        if self.order == "reversed":
            return tokens.flip(1)
        clips, length = tokens.shape[:2]
        if self.order == "shuffled":
            seed = (SHUFFLE_SEED, self.video)
            rng = self.rngs.setdefault(path, np.random.default_rng(seed))
            places = np.stack([rng.permutation(length) for _ in range(clips)])
            rows = torch.arange(clips, device=tokens.device)[:, None]
            return tokens[rows, torch.from_numpy(places).to(tokens.device)]
        chosen = [int(place) for place in self.order.split(",")]
        if len(chosen) != length:
            raise ArchError(f"an order of {len(chosen)} places for {length} tokens")
        return tokens[:, chosen]


@contextmanager
def reordered(model: VideoNet, order: str) -> Iterator[TimeOrder]:
    """A network's temporal head gets its tokens in another order; for tests.

    What a head sees always passes `classify`, whether it comes from clips, maps or a cache.
    """
    classify, reorder = model.classify, TimeOrder(order)
    model.classify = lambda tokens: classify(reorder(tokens))
    try:
        yield reorder
    finally:
        del model.classify
