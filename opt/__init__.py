"""The two recipes' optimizers, learning-rate schedules and the weights' average, on torch.optim."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

SCHEDULERS = ("plateau", "cosine")


def sgd(parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> SGD:
    """The reference's SGD: the dampening equals the published momentum, 0.9.

    On a GPU a step is one pass over the weights.
    """
    parameters = list(parameters)
    first = parameters[0]["params"][0] if isinstance(parameters[0], dict) else parameters[0]
    fused = True if first.is_cuda else None
    how = {"momentum": momentum, "dampening": 0.9, "weight_decay": weight_decay, "fused": fused}
    return SGD(parameters, lr, **how)


def adamw(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> AdamW:
    """AdamW (arXiv 1711.05101); `momentum` is its first beta.

    A step is one pass over the weights: with a token cache it is most of the work otherwise.
    """
    return AdamW(parameters, lr, betas=(momentum, 0.999), weight_decay=weight_decay, fused=True)


def fit_to_fused(optimizer: Optimizer) -> None:
    """Makes a loaded state what fused kernels take; others take it as well.

    They walk through a weight and its state in the order of their memory, so both have the same
    strides. SGD's wants a momentum for all weights that learn, or for none: what was frozen before
    begins with 0.
    """
    for weight, values in optimizer.state.items():
        for key, value in values.items():
            is_alike = torch.is_tensor(value) and value.shape == weight.shape
            if is_alike and value.stride() != weight.stride():
                values[key] = torch.empty_like(weight).copy_(value)
    for group in optimizer.param_groups:
        if group["fused"] and "momentum" in group:
            learning = [weight for weight in group["params"] if weight.requires_grad]
            begun = [w for w in learning if optimizer.state[w].get("momentum_buffer") is not None]
            for weight in set(learning).difference(begun) if begun else ():
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


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
        # torch would put the attributes of the class's method there, and a file's at the method.
        ramp = self.ramp.state_dict() | {"lr_lambdas": [{}]}
        return {"kind": self.kind, "ramp": ramp, "plateau": self.plateau.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restores the state; a state of the other kind is left aside."""
        if state["kind"] == self.kind:
            self.ramp.load_state_dict(state["ramp"] | {"lr_lambdas": [None]})
            self.plateau.load_state_dict(state["plateau"])


class MovingAverage:
    """A copy of a model whose weights are the exponential moving average over optimizer steps.

    The same numbers as torch's AveragedModel, which at each step waits for the GPU.

    Attributes:
        module: the copy; its buffers are those of the model.
        steps: how many steps it has seen; after the first it is the model.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module, self.decay, self.steps = copy.deepcopy(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """To be called after each step."""
        old, new = list(self.module.parameters()), list(model.parameters())
        if self.steps == 0:
            torch._foreach_copy_(old, new)
        else:
            torch._foreach_lerp_(old, new, 1 - self.decay)
        for own, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(buffer)
        self.steps += 1
