"""One pass over a loader: training with accumulated gradients, or validation."""

import time
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.metrics import PassResult
from engine.report import Progress


class NonFiniteLoss(ValueError):
    """The loss became infinite or not a number."""


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


def video_logits(
    model: nn.Module, clips: Tensor, normalize: Callable[[Tensor], Tensor], device: torch.device
) -> Tensor:
    """uint8 clips (N, S, T, H, W, C) -> logits (N, classes), averaged over a video's S clips."""
    videos, segments = clips.shape[:2]
    inputs = normalize(clips.to(device, non_blocking=True).flatten(0, 1))
    return model(inputs).unflatten(0, (videos, segments)).mean(dim=1)


def train_one_epoch(
    model: nn.Module,
    loader: Iterable[Batch],
    normalize: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    iter_size: int,
    device: torch.device,
    progress: Progress,
    max_steps: int | None = None,
    result: PassResult | None = None,
    after_step: Callable[[PassResult], None] = lambda result: None,
) -> PassResult:
    """Trains on each batch of the loader once, stepping every `iter_size` batches.

    A batch's loss is divided by `iter_size`; the last, incomplete group also steps and so
    weighs by its size. An epoch that is taken up again brings the `result` it had; `after_step`
    is called after each optimizer step, when no gradient is pending.
    Raises NonFiniteLoss before a bad gradient reaches the weights.
    """
    model.train()
    result = PassResult() if result is None else result
    last_step = None if max_steps is None else result.steps + max_steps
    optimizer.zero_grad()
    pending = 0
    for clips, labels in timed_batches(progress.over(loader, result), result):
        labels = labels.to(device, non_blocking=True)
        logits = video_logits(model, clips, normalize, device)
        loss = F.cross_entropy(logits, labels)
        value = loss.item()
        if not torch.isfinite(loss):
            raise NonFiniteLoss(
                f"{progress.title}: the loss is {value} at step {result.steps + 1}; "
                "try a lower --lr, from the beginning or with -c from the best model"
            )
        (loss / iter_size).backward()
        result.add(logits.detach(), labels, value, clips.shape[0] * clips.shape[1])
        pending += 1
        if pending == iter_size:
            _step(optimizer, result)
            pending = 0
            after_step(result)
            if result.steps == last_step:
                break
    if pending:
        _step(optimizer, result)
        after_step(result)
    return result


def _step(optimizer: torch.optim.Optimizer, result: PassResult) -> None:
    optimizer.step()
    optimizer.zero_grad()
    result.steps += 1


@torch.inference_mode()
def validate(
    model: nn.Module,
    loader: Iterable[Batch],
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    progress: Progress,
    after_batch: Callable[[PassResult], None] = lambda result: None,
) -> PassResult:
    """Loss and accuracies over the loader, in evaluation mode."""
    model.eval()
    result = PassResult()
    for clips, labels in timed_batches(progress.over(loader, result), result):
        labels = labels.to(device, non_blocking=True)
        logits = video_logits(model, clips, normalize, device)
        loss = F.cross_entropy(logits, labels).item()
        result.add(logits, labels, loss, clips.shape[0] * clips.shape[1])
        after_batch(result)
    return result
