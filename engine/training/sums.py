"""The sums of a pass over the data. They lie on the device, so that counting waits for no GPU."""

import math
from dataclasses import astuple, fields

import torch
from torch import Tensor

from datasets.clips import IGNORED
from engine import distributed
from engine.metrics import EpochStats

_FIELDS = fields(EpochStats)
_PLACES = {field.name: place for place, field in enumerate(_FIELDS)}
_TIMES = [_PLACES["loading"], _PLACES["computing"]]


class NonFiniteLoss(ValueError):
    """The loss, a logit or a weight became infinite or not a number."""


class Sums:
    """An EpochStats on the device, and the same on the CPU as it was when it was last read.

    Args:
        title: of the pass, for messages.
        stats: what a resumed epoch has done already.

    Attributes:
        own: float64 (8,), the fields of EpochStats: this process's batches since the last step.
        total: the same, all processes' steps. It ends with the first one whose loss is not finite.
        stats: the total as it was last read; its `steps` are always those that are taken.
    """

    def __init__(self, title: str, device: torch.device, stats: EpochStats | None = None):
        self.title, self.stats = title, EpochStats() if stats is None else stats
        place = device if device.type == "cuda" else "cpu"  # Apple's GPUs have no float64
        self.total = torch.tensor(astuple(self.stats), dtype=torch.float64, device=place)
        self.own = torch.zeros_like(self.total)

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor, segments: int) -> None:
        """Counts a batch without its padding: logits (N, classes), labels (N,), its summed loss.

        A video with logits that are not finite is wrong.
        """
        best = logits.topk(min(3, logits.shape[1]), dim=1).indices  # (N, 3)
        hits = (best == labels[:, None]) & logits.isfinite().all(dim=1, keepdim=True)
        videos = (labels != IGNORED).sum()
        self._add("videos", videos)
        self._add("clips", videos * segments)
        self._add("loss_sum", loss)
        self._add("top1_hits", hits[:, 0].sum())
        self._add("top3_hits", hits.sum())

    def add_times(self, loading: float = 0.0, computing: float = 0.0) -> None:
        """Counts seconds."""
        self._add("loading", loading)
        self._add("computing", computing)

    def _add(self, name: str, value: Tensor | float) -> None:
        if isinstance(value, Tensor):
            value = value.to(self.own.device)
        self.own[_PLACES[name]].add_(value)

    def pool(self, steps: int = 0) -> None:
        """Moves all processes' own sums to the total; they call this together, at each step.

        Times are the processes' mean. The order of additions is that of the steps, so the total
        does not depend on when it is read.
        """
        distributed.sum_tensor(self.own)
        for place in _TIMES:
            self.own[place].div_(distributed.world_size())
        self.own[_PLACES["steps"]].fill_(steps)
        self.total.add_(self.own.masked_fill(self.bad.bool(), 0))
        self.own.zero_()
        self.stats.steps += steps

    @property
    def bad(self) -> Tensor:
        """float32 (): 1 from the first step on whose loss is not finite, else 0."""
        return (~self.total[_PLACES["loss_sum"]].isfinite()).float()

    def read(self) -> EpochStats:
        """The total; waits for the device. Raises NonFiniteLoss, in every process."""
        stats = as_stats(self.total)
        if not math.isfinite(stats.loss_sum):
            message = f"{self.title}: the loss is {stats.loss_sum} at step {stats.steps}"
            raise NonFiniteLoss(message)
        self.stats = stats
        return stats


def as_stats(sums: Tensor) -> EpochStats:
    """float64 (8,) of Sums -> what is reported; waits for the device."""
    values = zip(_FIELDS, sums.tolist(), strict=True)
    return EpochStats(*(type(field.default)(value) for field, value in values))
