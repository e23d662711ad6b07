"""Temporal tokens in another order: does a network need to know when something happened?"""

import numpy as np
import torch
from torch import Tensor

from engine import UsageError
from models import ArchError

NORMAL = "normal"
TIME_ORDERS = (NORMAL, "reversed", "shuffled")
SHUFFLE_SEED = 0


def check_order(text: str) -> str:
    """The same; raises UsageError unless it is one of TIME_ORDERS, or the tokens' places, such as
    4,5,6,7,0,1,2,3."""
    if text in TIME_ORDERS:
        return text
    places = text.split(",")
    if not text.isascii() or sorted(places) != sorted(map(str, range(len(places)))):
        raise UsageError(
            f"must be {', '.join(TIME_ORDERS)} or all tokens' places from 0, like 1,0,2; not {text}"
        )
    return text


class TimeOrder:
    """Puts tokens (N, T', ...) in an order that `check_order` admits.

    "shuffled" draws a permutation for each clip of a video: neither batches nor the number of
    processes decide which. Raises ArchError for places of another number.
    """

    def __init__(self, order: str = NORMAL):
        self.order = check_order(order)
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
