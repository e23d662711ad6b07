"""How fast a network learns, measured against how fast this machine multiplies matrices."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

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
        return 100 * clips_per_second * self.flop / self.rate

    def __str__(self) -> str:
        return (
            f"{self.flop / 1e9:.4g} GFLOP a clip and step; this process multiplies float32 "
            f"matrices at {self.rate / 1e9:.4g} GFLOP/s, enough for {self.rate / self.flop:.4g} "
            "clips/s"
        )


def measure_gauge(model: VideoNet, inputs: Tensor, device: torch.device) -> Gauge:
    """Counts the operations for one clip's inputs (1, ...), and times a product of matrices."""
    return Gauge(count_flop(model, inputs.to(device)), matrix_rate(device))


def count_flop(model: VideoNet, inputs: Tensor) -> int:
    """Operations of products and convolutions, forward and backward; changes nothing."""
    was_training = model.training
    model.eval()  # the same products, and batch statistics stay as they are
    # Without oneDNN and cuDNN an LSTM consists of products that can be counted.
    plain = (
        torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
        torch.backends.cudnn.flags(enabled=False),
    )
    with plain[0], plain[1], FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    return counter.get_total_flops()


def matrix_rate(device: torch.device, size: int = 1024, seconds: float = 0.3) -> float:
    """Operations a second in products of two float32 matrices: the fastest of some."""
    a, b = torch.rand(2, size, size, device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the result on a GPU, too
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
