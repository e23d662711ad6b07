"""One pass over the data: training (clips -> logits -> loss -> step), or validation."""

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.clips import IGNORED
from engine import distributed
from engine.config import Recipe
from engine.metrics import EpochStats
from engine.training.log import Progress
from engine.training.state import TrainingState

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Batch = tuple[Tensor, Tensor]  # uint8 clips (N, S, T, H, W, C), labels (N,)
Prepare = Callable[[Tensor], Tensor]  # clips (N * S, T, H, W, C) -> the network's input


class NonFiniteLoss(ValueError):
    """The loss, a logit or a weight became infinite or not a number."""


def train_one_epoch(
    state: TrainingState,
    loader: Iterable[Batch],
    prepare: Prepare,
    recipe: Recipe,
    progress: Progress,
    stats: EpochStats | None = None,
    after_step: Sequence[Callable[[EpochStats], None]] = (),
) -> EpochStats:
    """Trains on each batch of the loader once, stepping every `recipe.iter_size` batches.

    The last, incomplete group also steps and weighs by its size. A resumed epoch brings the `stats`
    it had; they count the videos of all processes. `after_step` are called after each optimizer
    step, when no gradient is pending. The epoch ends early when `state.steps_left` is 0.
    Raises NonFiniteLoss before a bad gradient reaches the weights.
    """
    # begin
    state.train_mode()
    state.optimizer.zero_grad()
    stats = EpochStats() if stats is None else stats
    fresh = EpochStats()  # of this process, since the last step
    batches = timed_batches(progress.over(loader, stats), fresh)
    for number, (clips, labels) in enumerate(batches, 1):
        # clips -> logits -> loss -> gradient
        labels = labels.to(state.device, non_blocking=True)
        is_last = number % recipe.iter_size == 0 or number == len(loader)
        try:
            logits, loss = accumulate(state, clips, labels, prepare, recipe, is_last)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"{progress.title}: {error} at step {stats.steps + 1}") from None
        count_batch(fresh, logits, labels, loss, clips.shape[1])
        # step
        if is_last:
            take_step(state, recipe)
            stats.steps += 1
            pool(stats, fresh)
            if state.steps_left is not None:
                state.steps_left -= 1
            for call in after_step:
                call(stats)
            if state.steps_left == 0:
                break
    batches.close()  # counts the last batch's time
    pool(stats, fresh)
    return stats


def accumulate(
    state: TrainingState,
    clips: Tensor,
    labels: Tensor,
    prepare: Prepare,
    recipe: Recipe,
    is_last: bool,
) -> tuple[Tensor, float]:
    """Adds a batch's gradient; `is_last` before a step.

    Takes uint8 clips (N, S, T, H, W, C) and labels (N,), IGNORED for padding. Each video weighs one
    part in batch_size * iter_size * processes, in an incomplete batch too. Returns the logits
    (N, classes) and the loss summed over the videos, nats.
    Raises NonFiniteLoss before a bad gradient is made.
    """
    # clips -> inputs
    inputs, segments = network_input(clips, prepare, state.device), clips.shape[1]
    targets = [(1.0, labels)]
    if recipe.mixup:  # arXiv 1710.09412
        inputs, targets = mix(inputs, labels, segments, recipe.mixup)
    # logits -> loss -> gradient
    with distributed.gradient_sync(state.network, is_last):
        logits = video_logits(state.network, inputs, segments, recipe.amp)
        smoothing = recipe.label_smoothing  # arXiv 1512.00567
        loss = sum(
            weight * F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
            for weight, target in targets
        )
        value = loss.item()
        if not torch.isfinite(loss):
            raise NonFiniteLoss(f"the loss is {value}")
        state.scaler.scale(loss / (recipe.batch_size * recipe.iter_size)).backward()
    return logits.detach(), value


def take_step(state: TrainingState, recipe: Recipe) -> None:
    """Changes the weights by the accumulated gradient, and forgets it."""
    if recipe.clip_grad is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.average is not None:
        state.average.update_parameters(state.model)


def network_input(clips: Tensor, prepare: Prepare, device: torch.device) -> Tensor:
    """uint8 clips (N, S, T, H, W, C) -> the network's input (N * S, C, T, H, W)."""
    return prepare(clips.to(device, non_blocking=True).flatten(0, 1))


def mix(
    inputs: Tensor, labels: Tensor, segments: int, alpha: float
) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """Each video's input mixed with another's, and both labels with their weights."""
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    share = max(share, 1 - share)  # a video's own label stays the larger one
    other = torch.randperm(len(labels), device=labels.device)
    videos = inputs.unflatten(0, (-1, segments))
    mixed = (share * videos + (1 - share) * videos[other]).flatten(0, 1)
    return mixed, [(share, labels), (1 - share, labels[other])]


def video_logits(network: nn.Module, inputs: Tensor, segments: int, amp: str) -> Tensor:
    """Inputs (N * segments, ...) -> float32 (N, classes), the mean over a video's segments."""
    dtype = AMP_TYPES[amp]
    with torch.autocast(inputs.device.type, dtype, enabled=dtype is not None):
        logits = network(inputs)
    return logits.float().unflatten(0, (-1, segments)).mean(dim=1)


@torch.inference_mode()
def validate(
    model: nn.Module,
    loader: Iterable[Batch],
    prepare: Prepare,
    progress: Progress,
    amp: str = "off",
    after_batch: Callable[[int], None] = lambda number: None,
) -> EpochStats:
    """Loss and accuracies over all processes' batches, in evaluation mode.

    `model` is the network or its average; `after_batch` gets the batches done, from 1.
    Raises NonFiniteLoss, in every process, if the loss or a logit of any is not finite.
    """
    model.eval()
    device = next(model.parameters()).device
    stats, own = EpochStats(), EpochStats()
    batches = timed_batches(progress.over(loader, own), own)
    for number, (clips, labels) in enumerate(batches, 1):
        labels = labels.to(device, non_blocking=True)
        logits = video_logits(model, network_input(clips, prepare, device), clips.shape[1], amp)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        loss = torch.where(logits.isfinite().all(), loss, math.nan).item()
        count_batch(own, logits, labels, loss, clips.shape[1])
        after_batch(number)
    pool(stats, own)
    if not math.isfinite(stats.loss_sum):
        raise NonFiniteLoss(f"{progress.title}: the loss or a logit is not finite")
    return stats


def timed_batches(loader: Iterable[Batch], stats: EpochStats) -> Generator[Batch, None, None]:
    """The loader's batches; adds up the time until each arrives, and the time it is used."""
    mark = time.perf_counter()
    for batch in loader:
        arrived = time.perf_counter()
        stats.loading += arrived - mark
        try:
            yield batch
        finally:  # also of the last batch of an epoch that ends early
            mark = time.perf_counter()
            stats.computing += mark - arrived


def count_batch(
    stats: EpochStats, logits: Tensor, labels: Tensor, loss: float, segments: int
) -> None:
    """Counts a batch without its padding: logits (N, classes), labels (N,), its summed loss."""
    real = labels != IGNORED
    stats.add(logits[real], labels[real], loss, segments * int(real.sum()))


def pool(stats: EpochStats, own: EpochStats) -> None:
    """Adds to `stats` what all processes have in `own`, and empties that; times are their mean.

    Steps are taken together, so they are not summed.
    """
    names = [field.name for field in fields(own) if field.name != "steps"]
    sums = distributed.sum_over_processes([getattr(own, name) for name in names])
    for name, total in zip(names, sums, strict=True):
        kind = type(getattr(own, name))
        if name in ("loading", "computing"):
            total /= distributed.world_size()
        setattr(stats, name, getattr(stats, name) + kind(total))
        setattr(own, name, kind(0))
