"""Temporal tokens in another order: does a network need to know when something happened?"""

from collections.abc import Sequence

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

    `streams`: of how many the tokens are, one after the other; each is put in that order.
    """

    def __init__(self, order: str = NORMAL, streams: int = 1):
        self.order, self.streams = check_order(order), streams
        self.rows: list[int] = []
        # (pathway, row) -> what draws that video's permutations
        self.rngs: dict[tuple[str, int], np.random.Generator] = {}

    def start(self, rows: Sequence[int]) -> None:
        """The next tokens (N, ...) are those of the videos at these N places of the list.

        A video's clips come one after the other, perhaps in several batches.
        """
        self.rows = list(rows)
        self.rngs = {key: rng for key, rng in self.rngs.items() if key[1] in self.rows}

    def __call__(self, tokens: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(tokens, dict):  # two pathways
            return {path: self._reorder(own, path) for path, own in tokens.items()}
        parts = tokens.chunk(self.streams, dim=1)
        return torch.cat([self._reorder(own, str(n)) for n, own in enumerate(parts)], dim=1)

    def _reorder(self, tokens: Tensor, path: str) -> Tensor:
        if self.order == NORMAL:
            return tokens
        if self.order == "reversed":
            return tokens.flip(1)
        clips, length = tokens.shape[:2]
        if self.order == "shuffled":
            places = np.stack([self._draw(path, row, length) for row in self.rows])
            rows = torch.arange(clips, device=tokens.device)[:, None]
            return tokens[rows, torch.from_numpy(places).to(tokens.device)]
        chosen = [int(place) for place in self.order.split(",")]
        if len(chosen) != length:
            raise ArchError(f"an order of {len(chosen)} places for {length} tokens")
        return tokens[:, chosen]

    def _draw(self, path: str, row: int, length: int) -> np.ndarray:
        if (path, row) not in self.rngs:  # a pathway draws what the other draws
            self.rngs[path, row] = np.random.default_rng((SHUFFLE_SEED, row))
        return self.rngs[path, row].permutation(length)
