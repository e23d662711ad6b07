"""One pass over a loader: training with accumulated gradients, or validation."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.clips import IGNORED
from engine import distributed
from engine.learner import Learner, NonFiniteLoss
from engine.metrics import PassResult
from engine.report import Progress

Batch = tuple[Tensor, Tensor]  # uint8 clips (N, S, T, H, W, C), labels (N,)


def timed_batches(loader: Iterable[Batch], result: PassResult) -> Iterator[Batch]:
    """The loader's batches; books the time until each arrives, and the time it is used."""
    mark = time.perf_counter()
    for batch in loader:
        arrived = time.perf_counter()
        result.loading += arrived - mark
        yield batch
        mark = time.perf_counter()
        result.computing += mark - arrived


def train_one_epoch(
    learner: Learner,
    loader: Iterable[Batch],
    progress: Progress,
    max_steps: int | None = None,
    result: PassResult | None = None,
    after_step: Callable[[PassResult], None] = lambda result: None,
) -> PassResult:
    """Trains on each batch of the loader once, stepping every `learner.iter_size` batches.

    The last, incomplete group also steps and weighs by its size. An epoch that is taken up again
    brings the `result` it had; it counts the videos of all processes. `after_step` is called
    after each optimizer step, when no gradient is pending.
    Raises NonFiniteLoss before a bad gradient reaches the weights.
    """
    learner.train_mode()
    learner.optimizer.zero_grad()
    result = PassResult() if result is None else result
    last_step = None if max_steps is None else result.steps + max_steps
    fresh = PassResult()  # of this process, since the last step
    batches = timed_batches(progress.over(loader, result), fresh)
    for number, (clips, labels) in enumerate(batches, 1):
        labels = labels.to(learner.device, non_blocking=True)
        is_last = number % learner.iter_size == 0 or number == len(loader)
        try:
            logits, loss = learner.accumulate(clips, labels, is_last)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(
                f"{progress.title}: {error} at step {result.steps + 1}; "
                "try a lower --lr, from the beginning or with -c from the best model"
            ) from None
        count(fresh, logits, labels, loss, clips.shape[1])
        if is_last:
            learner.step()
            result.steps += 1
            pool(result, fresh)
            after_step(result)
            if result.steps == last_step:
                break
    pool(result, fresh)
    return result


@torch.inference_mode()
def validate(
    learner: Learner,
    model: nn.Module,
    loader: Iterable[Batch],
    progress: Progress,
    after_batch: Callable[[int], None] = lambda number: None,
) -> PassResult:
    """Loss and accuracies over all processes' batches, in evaluation mode.

    `model` is the learner's network or its average; `after_batch` gets the batches done, from 1.
    """
    model.eval()
    result, own = PassResult(), PassResult()
    batches = timed_batches(progress.over(loader, own), own)
    for number, (clips, labels) in enumerate(batches, 1):
        labels = labels.to(learner.device, non_blocking=True)
        logits = learner.logits(model, learner.inputs(clips), clips.shape[1])
        loss = F.cross_entropy(logits, labels, reduction="sum").item()
        count(own, logits, labels, loss, clips.shape[1])
        after_batch(number)
    pool(result, own)
    return result


def count(result: PassResult, logits: Tensor, labels: Tensor, loss: float, segments: int) -> None:
    """Books a batch, without its padding: logits (N, classes), labels (N,), its summed loss."""
    real = labels != IGNORED
    result.add(logits[real], labels[real], loss, segments * int(real.sum()))


def pool(result: PassResult, part: PassResult) -> None:
    """Adds to `result` what all processes have in `part`, and empties that; times are their mean.

    Steps are taken together, so they are not summed.
    """
    names = [field.name for field in fields(part) if field.name != "steps"]
    sums = distributed.sum_over_processes([getattr(part, name) for name in names])
    for name, total in zip(names, sums, strict=True):
        kind = type(getattr(part, name))
        if name in ("loading", "computing"):
            total /= distributed.world_size()
        setattr(result, name, getattr(result, name) + kind(total))
        setattr(part, name, kind(0))
