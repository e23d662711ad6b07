"""What an interrupted run needs to go on exactly: where in the epoch it was, and all random states.

Augmentation and order are functions of (seed, epoch, video), so no state of theirs is kept beyond
the order itself. Everything is plain values and tensors, so that files load with `weights_only`.
"""

import random
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn

from engine.metrics import PassResult


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's, torch's and CUDA's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states() -> dict:
    """The states of Python's, NumPy's, torch's and CUDA's generators."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict) -> None:
    """Sets the generators; those of GPUs that are not here are left aside."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class StepState:
    """What forward passes change without an optimizer step: batch statistics, random states, sums.

    Cheap enough to be taken after every step.
    """

    def __init__(self, model: nn.Module, result: PassResult):
        self.buffers = [buffer.clone() for buffer in model.buffers()]
        self.random_states = random_states()
        self.result = replace(result)

    def restore(self, model: nn.Module) -> None:
        """Sets batch statistics and random states back."""
        for buffer, value in zip(model.buffers(), self.buffers, strict=True):
            buffer.copy_(value)
        restore_random_states(self.random_states)


def describe_progress(result: PassResult, permutation: torch.Tensor) -> dict:
    """Where in its epoch a training is: the sums so far, and its order of the videos."""
    return {"result": asdict(result), "permutation": permutation}


def restore_progress(progress: dict) -> tuple[PassResult, torch.Tensor]:
    """The sums so far and the epoch's order, (videos,) int64."""
    return PassResult(**progress["result"]), progress["permutation"]
