"""The state of a training, and what a resumed run needs of it to be bit-exact.

Augmentation and order are functions of (seed, epoch, video), so no state of theirs is kept beyond
the order itself. Everything is plain values and tensors, so that files load with `weights_only`.
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.samplers import TrainingBatches
from engine import distributed
from engine.checkpoint import is_like
from engine.config import Recipe
from engine.files import CheckpointError
from engine.metrics import EpochStats
from models import VideoNet
from opt import MovingAverage, Schedule, fit_to_fused

# (parameters or groups of them, lr, momentum, weight_decay) -> optimizer
MakeOptimizer = Callable[..., torch.optim.Optimizer]
READ_STEPS = 50  # steps after which a GPU is waited for, to see its loss
# What loading a state of nonsense may raise.
MISFITS = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)


class TrainingState:
    """A network and all that changes with it from step to step.

    Args:
        model: the bare network, on its device.
        optimizer: of its parameters.
        recipe: how it learns.
        frozen: modules that stay in evaluation mode while training.

    Attributes:
        network: the model, or what averages its gradients over the processes.
        average: the weights' moving average, or None.
        read_steps: optimizer steps from one look at the loss to the next. A GPU need not be waited
            for where its optimizer can skip steps by itself.
        epoch: epochs done.
        steps_left: optimizer steps before the training ends early, or None.
        best: top-1 and loss of the best model so far, and top-1 of the best average.
    """

    def __init__(
        self,
        model: VideoNet,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        frozen: Iterable[nn.Module] = (),
    ):
        self.model, self.optimizer, self.frozen = model, optimizer, list(frozen)
        self.device = device = next(model.parameters()).device
        self.network = distributed.parallel(model, device)
        self.schedule = Schedule(optimizer, recipe.scheduler, recipe.epochs, recipe.warmup_epochs)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16")
        self.average = None if recipe.ema is None else MovingAverage(model, recipe.ema)
        fused = all(group["fused"] for group in optimizer.param_groups)
        self.read_steps = READ_STEPS if device.type == "cuda" and fused else 1
        self.epoch = 0
        self.steps_left: int | None = None
        self.best = {"best_prec1": -1.0, "best_loss": float("inf"), "best_ema": -1.0}
        self.interrupted: dict | None = None  # the progress of an epoch that was cut
        self.random_states: list = []  # of every process, then

    @property
    def lr(self) -> float:
        """The learning rate now; of several groups the head's."""
        return self.optimizer.param_groups[0]["lr"]

    def train_mode(self) -> None:
        """Training mode for everything but the frozen modules."""
        self.network.train()
        for module in self.frozen:
            module.training = False

    def begin_epoch(self, batches: TrainingBatches, seed: int) -> EpochStats:
        """Seeds, or restores what an interrupted epoch had; returns the sums of what is done."""
        batches.set_epoch(self.epoch)
        seed_everything(seed + self.epoch, distributed.rank())
        if self.interrupted is None:
            return EpochStats()
        stats = EpochStats(**self.interrupted["result"])
        batches.restore(self.interrupted["permutation"], stats.videos)
        self.interrupted = None
        states = self.random_states
        if len(states) == distributed.world_size() and None not in states:
            restore_random_states(states[distributed.rank()])
        else:
            seed_everything(seed + self.epoch, distributed.rank(), stats.steps)
            print("note: the random states are those of other processes; new ones are drawn")
        return stats

    def note_best(self, val: EpochStats, ema: EpochStats | None) -> tuple[bool, bool]:
        """Whether this validation, and that of the average, are the best so far."""
        is_best = val.top1 > self.best["best_prec1"]
        if is_best:
            self.best |= {"best_prec1": val.top1, "best_loss": val.loss}
        is_best_average = ema is not None and ema.top1 > self.best["best_ema"]
        if is_best_average:
            self.best["best_ema"] = ema.top1
        return is_best, is_best_average

    def restore(self, path: Path, content: Mapping[str, Any], recipe: Recipe) -> None:
        """Everything but the weights, which are loaded, from a checkpoint's content.

        Says which flags give way; files of the reference implementation have less, and serve too.
        Raises CheckpointError for the state of another optimizer, or of none at all.
        """
        try:
            if "optimizer" in content:
                restore_optimizer(content["optimizer"], self.optimizer, recipe.lr)
            if "scheduler" in content:
                restore_schedule(content["scheduler"], self.schedule)
            self._restore_learner(content.get("learner", {}))
        except MISFITS as error:
            why = "it holds no optimizer's state" if content.get("optimizer") == {} else error
            raise CheckpointError(
                f"{path} cannot be continued: {why}; --weights {path} begins a training with its "
                "weights"
            ) from None
        self.epoch = self.epoch or content.get("epoch", 0)
        self.best |= {key: float(content[key]) for key in self.best if key in content}
        self.interrupted = content.get("progress")
        self.random_states = content.get("random_states", [])

    def _restore_learner(self, state: Mapping[str, Any]) -> None:
        """The loss's scale and the average; one that is not there begins at the weights."""
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            average = state.get("ema", self.model.state_dict())
            if not all(value.isfinite().all() for value in average.values()):
                raise ValueError("its average's weights are not finite")
            self.average.module.load_state_dict(average)
            self.average.steps = int(state.get("ema_steps", 0))

    def learner_dict(self) -> dict:
        """What is neither the model's nor the optimizer's: the loss's scale and the average."""
        state: dict = {"scaler": self.scaler.state_dict()}
        if self.average is not None:
            state["ema"] = self.average.module.state_dict()
            state["ema_steps"] = self.average.steps
        return state


def restore_schedule(saved: Mapping[str, Any], schedule: Schedule) -> None:
    """Loads the state of a schedule of the same kind; raises ValueError for what is none."""
    if saved.get("kind") != schedule.kind:
        print(f"note: --scheduler {schedule.kind} begins at epoch 0 of its course")
    elif not is_like(saved, schedule.state_dict()):
        raise ValueError("the schedule's state has other fields")
    else:
        schedule.load_state_dict(saved)


def restore_optimizer(
    state: Mapping[str, Any], optimizer: torch.optim.Optimizer, lr: float
) -> None:
    """Loads an optimizer's state; raises ValueError if it is another's, or nonsense."""
    # of the same kind?
    ours, saved = optimizer.state_dict()["param_groups"], state["param_groups"]
    if ("betas" in saved[0]) != ("betas" in ours[0]):
        adamw, sgd = ("AdamW", "two_stream_bert2.py"), ("SGD", "two_stream2.py")
        name, script = adamw if "betas" in saved[0] else sgd
        raise ValueError(f"it was trained with {name}; continue with {script}")
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
    # load
    optimizer.load_state_dict({**state, "param_groups": saved})
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                if value.shape != parameter.shape or not value.isfinite().all():
                    raise ValueError(f"its optimizer's {key} is misshapen or not finite")
    fit_to_fused(optimizer)
    begun = saved[0].get("initial_lr", lr)
    if begun != lr:
        print(f"note: the learning rate of the checkpoint is kept (begun with --lr {begun:g})")


def check_list(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises CheckpointError for an epoch that was begun with other training videos, or another
    order of them: what is left of it is kept as places in the list.

    Args:
        path: the checkpoint's.
        there, here: the fingerprints of its data and of these; old files have none.
    """
    lists = [side.get("lists", {}).get("train", {}).get("videos") for side in (there, here)]
    if None in lists:
        print(f"warning: {path} does not say in which order its epoch's list was; is it the same?")
        return
    if lists[0] == lists[1]:
        return
    if len(lists[0]) != len(lists[1]):
        what = f"it had {len(lists[0])} videos, now there are {len(lists[1])}"
    else:
        places = [n for n, (a, b) in enumerate(zip(*lists, strict=True), 1) if a != b]
        same = sorted(lists[0]) == sorted(lists[1])
        what = "the same videos in another order" if same else "other videos or labels"
        what += f", {len(places)} of {len(lists[0])} videos, the first is number {places[0]}"
    raise CheckpointError(
        f"{path} lies within an epoch, and the training list has changed since: {what}; "
        "restore the list, or continue from a checkpoint of a whole epoch"
    )


def changed_flags(content: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Which flags of the recipe are not those that a checkpoint was trained with, a line each."""
    now = asdict(recipe)
    return [
        f"it was trained with --{key.replace('_', '-')} {then}, now {now[key]}"
        for key, then in content.get("flags", {}).items()
        if key in now and now[key] != then
    ]


class StepState:
    """What forward passes change without an optimizer step: batch statistics, random states, sums.

    Cheap enough to be taken after every step: it waits for no GPU. `total` is the epoch's Sums'.
    """

    def __init__(self, model: nn.Module, total: Tensor):
        self.buffers = [buffer.clone() for buffer in model.buffers()]
        self.random_states = random_states()
        self.total = total.clone()

    def restore(self, model: nn.Module) -> None:
        """Sets batch statistics and random states back."""
        for buffer, value in zip(model.buffers(), self.buffers, strict=True):
            buffer.copy_(value)
        restore_random_states(self.random_states)


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
        version, internal, gauss_next = states["python"]
        random.setstate((version, tuple(internal), gauss_next))
        keys, position, has_gauss, gauss = states["numpy"]
        keys = keys.numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, position, has_gauss, gauss))
        torch.set_rng_state(states["torch"])
        if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states["cuda"])
    except MISFITS as error:
        raise CheckpointError(f"the checkpoint's random states cannot be read: {error}") from None
