"""One pass over the data: training (clips -> logits -> loss -> step), or validation."""

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import distributed
from engine.config import Recipe
from engine.loading import on_device
from engine.metrics import EpochStats
from engine.speed import autocast
from engine.training.log import Progress
from engine.training.state import TrainingState
from engine.training.sums import NonFiniteLoss, Sums, as_stats

Batch = tuple[Tensor, Tensor]  # uint8 clips (N, S, T, H, W, C), labels (N,)
Prepare = Callable[[Tensor], Tensor]  # clips (N * S, T, H, W, C) -> the network's input
Augment = Callable[[int, Tensor], Tensor]  # a batch's number, from 0, and its clips -> other clips


def train_one_epoch(
    state: TrainingState,
    loader: Iterable[Batch],
    prepare: Prepare,
    recipe: Recipe,
    progress: Progress,
    sums: Sums | None = None,
    after_step: Sequence[Callable[[EpochStats], None]] = (),
    augment: Augment | None = None,
) -> EpochStats:
    """Trains on each batch of the loader once, stepping every `recipe.iter_size` batches.

    The last, incomplete group also steps and weighs by its size. A resumed epoch brings the `sums`
    it had; they count the videos of all processes. `after_step` are called after each optimizer
    step, when no gradient is pending, with what was read of the sums last. The epoch ends early
    when `state.steps_left` is 0. A bad gradient never reaches the weights: either it is seen before
    the step, or the optimizer skips this step and all others until it is seen.
    Raises NonFiniteLoss, which names the step, within `state.read_steps` steps.
    """
    # begin
    state.train_mode()
    state.optimizer.zero_grad()
    sums = Sums(progress.title, state.device) if sums is None else sums
    batches = progress.over(loader, lambda: as_stats(sums.total))
    batches = timed_batches(on_device(batches, state.device), sums)
    for number, (clips, labels) in enumerate(batches, 1):
        # clips -> logits -> loss -> gradient
        clips = clips if augment is None else augment(number - 1, clips)
        is_last = number % recipe.iter_size == 0 or number == len(loader)
        logits, loss = accumulate(state, clips, labels, prepare, recipe, is_last)
        sums.add(logits, labels, loss, clips.shape[1])
        # step
        if is_last:
            sums.pool(steps=1)
            if sums.stats.steps % state.read_steps == 0:
                sums.read()
            take_step(state, recipe, sums.bad if state.read_steps > 1 else None)
            if state.steps_left is not None:
                state.steps_left -= 1
            for call in after_step:
                call(sums.stats)
            if state.steps_left == 0:
                break
    batches.close()  # counts the last batch's time
    sums.pool()
    return sums.read()


def accumulate(
    state: TrainingState,
    clips: Tensor,
    labels: Tensor,
    prepare: Prepare,
    recipe: Recipe,
    is_last: bool,
) -> tuple[Tensor, Tensor]:
    """Adds a batch's gradient; `is_last` before a step.

    Takes uint8 clips (N, S, T, H, W, C) and labels (N,), IGNORED for padding, on the device. Each
    video weighs one part in batch_size * iter_size * processes, in an incomplete batch too. Returns
    the logits (N, classes) and the loss summed over the videos (), nats.
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
        state.scaler.scale(loss / (recipe.batch_size * recipe.iter_size)).backward()
    return logits.detach(), loss.detach()


def take_step(state: TrainingState, recipe: Recipe, bad: Tensor | None = None) -> None:
    """Changes the weights by the accumulated gradient, and forgets it.

    Where `bad`, float32 () on the device, is 1, a fused optimizer changes nothing.
    """
    optimizer, scaler = state.optimizer, state.scaler
    # gradient
    if recipe.clip_grad is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_grad)
    # step
    scale = scaler.get_scale() if scaler.is_enabled() and not optimizer.state else None
    hook = optimizer.register_step_pre_hook(partial(_skip, bad))
    scaler.step(optimizer)
    hook.remove()
    scaler.update()
    if scale is not None and scaler.get_scale() < scale:
        optimizer.state.clear()  # fused SGD's momentum after a first step that was skipped is junk
    optimizer.zero_grad()
    # average
    if state.average is not None:
        state.average.update(state.model)


def _skip(bad: Tensor | None, optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Before a step: `found_inf` is what fused kernels look at; fp16's scaler may have set it."""
    if bad is not None:
        optimizer.found_inf = torch.maximum(bad, getattr(optimizer, "found_inf", bad))


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
    with autocast(inputs.device, amp):
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
    sums = Sums(progress.title, device)
    batches = progress.over(loader, lambda: as_stats(sums.own))
    with closing(timed_batches(on_device(batches, device), sums)) as batches:
        for number, (clips, labels) in enumerate(batches, 1):
            logits = video_logits(model, network_input(clips, prepare, device), clips.shape[1], amp)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            loss = loss.masked_fill(~logits.isfinite().all(), math.nan)
            sums.add(logits, labels, loss, clips.shape[1])
            after_batch(number)
    sums.pool()
    stats = as_stats(sums.total)
    if not math.isfinite(stats.loss_sum):
        raise NonFiniteLoss(f"{progress.title}: the loss or a logit is not finite")
    return stats


def timed_batches(loader: Iterable[Batch], sums: Sums) -> Generator[Batch, None, None]:
    """The loader's batches; adds up the time until each arrives, and the time it is used."""
    mark = time.perf_counter()
    for batch in loader:
        arrived = time.perf_counter()
        sums.add_times(loading=arrived - mark)
        try:
            yield batch
        finally:  # also of the last batch of an epoch that ends early
            mark = time.perf_counter()
            sums.add_times(computing=mark - arrived)
