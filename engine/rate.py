"""How fast a network learns, measured against how fast this machine multiplies matrices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.metrics import count_flops, matrix_rate, mfu
from models import VideoNet


@dataclass(frozen=True)
class Gauge:
    """What a clip costs, and what the machine could do.

    Attributes:
        flop: floating point operations of a clip's forward and backward pass; a multiplication
            and its addition are two.
        rate: floating point operations a second in a product of float32 matrices.
    """

    flop: float
    rate: float

    def share(self, clips_per_second: float) -> float:
        """What part of the machine's matrix rate is used, percent."""
        return mfu(self.flop, clips_per_second, self.rate)

    def __str__(self) -> str:
        return (
            f"{self.flop / 1e9:.4g} GFLOP a clip and step; this process multiplies float32 "
            f"matrices at {self.rate / 1e9:.4g} GFLOP/s, enough for {self.rate / self.flop:.4g} "
            "clips/s"
        )


def measure_gauge(model: VideoNet, inputs: Tensor, device: torch.device) -> Gauge:
    """Counts the operations for one clip's inputs (1, ...), and times a product of matrices."""
    return Gauge(count_flops(model, inputs.to(device), backward=True), matrix_rate(device))
