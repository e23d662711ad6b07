"""What an interrupted run needs to go on exactly: place in the epoch, optimizer, random states.

Augmentation and order are functions of (seed, epoch, video), so no state of theirs is kept beyond
the order itself. Everything is plain values and tensors, so that files load with `weights_only`.
"""

import argparse
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.files import CheckpointError
from engine.learner import Learner
from engine.metadata import is_like
from engine.metrics import PassResult
from opt import Schedule

# The flags that make up a training's recipe; they travel in its checkpoints.
RECIPE = (
    *("batch_size", "iter_size", "lr", "momentum", "weight_decay", "num_seg", "epochs"),
    *("scheduler", "warmup_epochs", "amp", "clip_grad", "ema", "freeze_bn", "freeze_backbone"),
    *("layer_decay", "label_smoothing", "mixup", "drop_tokens", "sync_bn"),
    "activation_checkpointing",
)
# What loading a state of nonsense may raise.
MISFITS = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)


def seed_everything(seed: int, rank: int = 0, steps: int = 0) -> None:
    """Seeds Python's, NumPy's, torch's and CUDA's generators; every process differently."""
    if rank or steps:
        seed = int(np.random.SeedSequence((seed, rank, steps)).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed % 2**32)
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
    """Sets the generators; those of GPUs that are not here are left aside.

    Raises CheckpointError for what are no states.
    """
    try:
        _set_random_states(states)
    except MISFITS as error:
        raise CheckpointError(f"the checkpoint's random states cannot be read: {error}") from None


def _set_random_states(states: dict) -> None:
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


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of the recipe, plain values."""
    return {key: getattr(args, key) for key in RECIPE}


def changed_flags(content: Mapping[str, Any], args: argparse.Namespace) -> list[str]:
    """Which flags of the recipe are not those that a checkpoint was trained with, a line each."""
    now = recipe(args)
    return [
        f"it was trained with --{key.replace('_', '-')} {then}, now {now[key]}"
        for key, then in content.get("flags", {}).items()
        if key in now and now[key] != then
    ]


def restore_optimization(
    path: Path,
    content: Mapping[str, Any],
    learner: Learner,
    schedule: Schedule,
    args: argparse.Namespace,
) -> None:
    """Optimizer, schedule, loss scale and average of a checkpoint; says which flags give way.

    Raises CheckpointError if they are of another optimizer, or none at all.
    """
    try:
        if "optimizer" in content:
            _restore_optimizer(content["optimizer"], learner.optimizer, args.lr)
        if "scheduler" in content:
            if content["scheduler"].get("kind") != schedule.kind:
                print(f"note: --scheduler {schedule.kind} begins at epoch 0 of its course")
            elif not is_like(content["scheduler"], schedule.state_dict()):
                raise ValueError("the schedule's state has other fields")
            else:
                schedule.load_state_dict(content["scheduler"])
        learner.load_state_dict(content.get("learner", {}))
    except MISFITS as error:
        raise CheckpointError(f"{path} cannot be continued: {error}") from None


def _restore_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer, lr: float):
    ours, saved = optimizer.state_dict()["param_groups"], state["param_groups"]
    if ("betas" in saved[0]) != ("betas" in ours[0]):
        kind, script = ("AdamW", "two_stream_bert2.py"), ("SGD", "two_stream2.py")
        name, other = kind if "betas" in saved[0] else script
        raise ValueError(f"it was trained with {name}; continue with {other}")
    if len(saved) != len(ours):
        raise ValueError(
            f"its optimizer has {len(saved)} groups of parameters, here are {len(ours)}; "
            "continue with the --layer-decay that it was trained with"
        )
    # Whether a step is one kernel is this code's matter; files of before it was do not tell.
    saved = [{**theirs, "fused": own["fused"]} for theirs, own in zip(saved, ours, strict=True)]
    for theirs, own in zip(saved, ours, strict=True):
        shared = own.keys() & theirs.keys() - {"params"}
        if not is_like({key: theirs[key] for key in shared}, {key: own[key] for key in shared}):
            raise ValueError("its optimizer's settings are no settings")
        if not math.isfinite(theirs.get("lr", math.nan)):
            raise ValueError(f"its learning rate is {theirs.get('lr')}")
    optimizer.load_state_dict({**state, "param_groups": saved})
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                if value.shape != parameter.shape or not value.isfinite().all():
                    raise ValueError(f"its optimizer's {key} is misshapen or not finite")
    begun = saved[0].get("initial_lr", lr)
    if begun != lr:
        print(f"note: the rate of the checkpoint goes on (begun with --lr {begun:g})")
