"""The two recipes' optimizers and the learning-rate schedules, on torch.optim."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

SCHEDULERS = ("plateau", "cosine")


def sgd(parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> SGD:
    """The reference's SGD: the dampening equals the published momentum, 0.9."""
    return SGD(parameters, lr, momentum=momentum, dampening=0.9, weight_decay=weight_decay)


def adamw(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> AdamW:
    """AdamW (arXiv 1711.05101); `momentum` is its first beta.

    A step is one pass over the weights: with a token cache it is most of the work otherwise.
    """
    return AdamW(parameters, lr, betas=(momentum, 0.999), weight_decay=weight_decay, fused=True)


class Schedule:
    """Learning rate by epoch: a linear warm-up, then `plateau` or `cosine`.

    plateau: a tenth when the validation loss has not fallen for 5 epochs, as published.
    cosine: from the full rate towards zero over the remaining epochs (arXiv 1608.03983).
    """

    def __init__(self, optimizer: Optimizer, kind: str, epochs: int, warmup_epochs: int = 0):
        if kind not in SCHEDULERS:
            raise ValueError(f"unknown schedule '{kind}'; choose from {', '.join(SCHEDULERS)}")
        self.kind, self.epochs, self.warmup_epochs = kind, epochs, warmup_epochs
        self.ramp = LambdaLR(optimizer, self._factor)
        self.plateau = ReduceLROnPlateau(optimizer, factor=0.1, patience=5)

    def _factor(self, epoch: int) -> float:
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        if self.kind == "plateau":
            return 1.0
        share = (epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def step(self, validation_loss: float) -> None:
        """To be called at the end of each epoch."""
        if self.kind == "plateau" and self.ramp.last_epoch >= self.warmup_epochs:
            self.plateau.step(validation_loss)
        else:
            self.ramp.step()

    def state_dict(self) -> dict:
        return {
            "kind": self.kind,
            "ramp": self.ramp.state_dict(),
            "plateau": self.plateau.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restores the state; a state of the other kind is left aside."""
        if state["kind"] == self.kind:
            self.ramp.load_state_dict(state["ramp"])
            self.plateau.load_state_dict(state["plateau"])
