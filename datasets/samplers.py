"""Which videos make which batch, and which process has it.

The batches follow from the list, the seed and the epoch; several processes share them out, so
that a training does not depend on how many there are.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler

from datasets.files import DataError


class Padding(int):
    """A video that only keeps a process in step with the others; its label is IGNORED."""


class TrainingBatches(Sampler[list[int]]):
    """This process's share of every batch of an epoch; the order is a function of (seed, epoch).

    A common batch has `batch_size` videos for each process and is cut into even shares, the last
    one as well. A process whose share is empty gets one video as `Padding`.

    Attributes:
        epoch: its number.
        permutation: the epoch's order, int64 (length,).
        position: how many of it are done already, when an epoch is resumed.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        self.length, self.seed = length, seed
        self.common = batch_size * world_size
        self.rank, self.world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        self.epoch, self.permutation, self.position = epoch, torch.from_numpy(order), 0

    def restore(self, permutation: torch.Tensor, position: int) -> None:
        """Resumes an epoch; raises DataError if it was one of another list."""
        if len(permutation) != self.length:
            raise DataError(
                f"the epoch was begun with {len(permutation)} training videos, now there are "
                f"{self.length}; continue from a checkpoint of a whole epoch"
            )
        self.permutation, self.position = permutation, position

    def __len__(self) -> int:
        return -(-(self.length - self.position) // self.common)

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.batch, range(len(self)))

    def batch(self, number: int) -> list[int]:
        """The videos of a batch of those that are left, from 0."""
        start = self.position + number * self.common
        common = self.permutation[start : start + self.common].tolist()
        cuts = [len(common) * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return common[slice(*cuts)] or [Padding(common[0])]


class ValidationBatches(Sampler[list[int]]):
    """Whole batches in the list's order, every `world_size`-th of them: none twice, none padded."""

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1):
        batches = list(BatchSampler(range(length), batch_size, drop_last=False))
        self.common = len(batches) // world_size  # what every process has
        self.batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches
