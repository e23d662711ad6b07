"""`--batch-size auto`: as large a batch as fits, with an --iter-size for the same effective batch.

What a step needs is counted on the meta device, where nothing is computed. A GPU then tries it.
"""

import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine import UsageError, distributed
from engine.checkpoint import metadata_faults
from engine.config import Recipe, TrainingConfig
from engine.files import read_file
from engine.training.build import prepare_model
from engine.training.epoch import video_logits
from models import ArchSpec, VideoNet, create_model
from models.finetuning import freeze

USABLE = 0.7  # of the free memory that is used; workspaces, fragments and copies take of the rest
CLASSES = 101  # whatever the dataset's number is, the last layer is small
MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Needs:
    """Bytes that an optimizer step takes: for each video of a batch, and whatever the batch."""

    video: int
    fixed: int

    def of(self, videos: int) -> int:
        return self.fixed + videos * self.video


def fit_batch_size(
    config: TrainingConfig, spec: ArchSpec, device: torch.device, checkpoint: Path | None
) -> TrainingConfig:
    """The same training with as large batches as fit; prints what was chosen and why.

    The effective batch stays --batch-size x --iter-size. All processes have batches of one size. A
    training that is continued keeps its checkpoint's, so that it is the same training.
    Raises UsageError, in every process, if not even one video fits.
    """
    recipe = config.recipe
    effective = recipe.batch_size * recipe.iter_size
    kept = None if checkpoint is None else kept_batch_size(checkpoint, effective)
    if kept is not None:
        size, why = kept, f"as in {checkpoint}"
    else:
        needs, free = step_needs(spec, recipe), free_bytes(device)
        size = largest_fitting(effective, lambda videos: needs.of(videos) <= USABLE * free)
        size = min(distributed.gather(size))
        if size and device.type == "cuda":
            tried = largest_fitting(size, lambda videos: can_step(spec, recipe, videos, device), 2)
            torch.cuda.empty_cache()
            size = min(distributed.gather(tried))
        why = (
            f"of {_shown(free)} free, {USABLE:.0%} may be used; a video takes about "
            f"{_shown(needs.video)}, weights, gradients and optimizer {_shown(needs.fixed)}"
        )
    if not size:
        raise UsageError(
            f"--batch-size auto: a step with one video needs about {_shown(needs.of(1))} on "
            f"{device}, and {why}; what helps: --activation-checkpointing, --amp bf16, a smaller "
            "--num-seg or --arch"
        )
    print(f"--batch-size auto: {size}, --iter-size {effective // size} ({why})")
    return replace(config, recipe=replace(recipe, batch_size=size, iter_size=effective // size))


def kept_batch_size(checkpoint: Path, effective: int) -> int | None:
    """The batch size that a checkpoint was trained with, if its effective batch was this."""
    content = read_file(checkpoint)
    flags = {} if metadata_faults(content) else content.get("flags", {})
    size, number = flags.get("batch_size"), flags.get("iter_size")
    is_same = isinstance(size, int) and isinstance(number, int) and size * number == effective
    return size if is_same and size > 0 else None


def largest_fitting(effective: int, fits: Callable[[int], bool], ratio: float = 1) -> int:
    """The largest divisor of the effective batch that fits, 0 if none does.

    Each one that is tried is smaller than the one before, by this ratio at least.
    """
    limit = float(effective)
    for size in range(effective, 0, -1):
        if effective % size == 0 and size <= limit:
            if fits(size):
                return size
            limit = size / ratio
    return 0


def free_bytes(device: torch.device) -> int:
    """Free memory of a device for this process; processes on a CPU share it.

    Raises UsageError where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = dict(line.split(":") for line in MEMORY_INFO.read_text().splitlines())
        available = 1024 * int(lines["MemAvailable"].removesuffix("kB"))
    except (OSError, KeyError, ValueError):
        raise UsageError(
            "--batch-size auto: this system does not say how much memory is free; give a number"
        ) from None
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def step_needs(spec: ArchSpec, recipe: Recipe) -> Needs:
    """What steps of this recipe need, counted for two and for four videos."""
    # memory at its peak
    model = _new_model(spec, recipe, torch.device("meta"))
    peaks = []
    for videos in (2, 4):
        with PeakMemory([*model.parameters(), *model.buffers()]) as memory:
            _backward(model, spec, recipe, videos)
        peaks.append(memory.peak)
        model.zero_grad(set_to_none=True)
    video = (peaks[1] - peaks[0]) // 2
    fixed = max(0, peaks[0] - 2 * video)  # gradients
    # weights, their average, at most two numbers of an optimizer
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    learning = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    fixed += weights * (1 if recipe.ema is None else 2) + 2 * learning
    # numbers of half the size
    return Needs(video // 2 if recipe.amp != "off" else video, fixed)


def can_step(spec: ArchSpec, recipe: Recipe, videos: int, device: torch.device) -> bool:
    """Whether a step with a new network and random clips ends without a lack of memory."""
    gpus = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(gpus):
            model = _new_model(spec, recipe, device)
            copies = 2 if recipe.ema is None else 3  # of the optimizer, and the average
            others = [torch.empty_like(p) for p in model.parameters() for _ in range(copies)]
            _backward(model, spec, recipe, videos)
        return len(others) > 0
    except torch.OutOfMemoryError:
        return False


def _new_model(spec: ArchSpec, recipe: Recipe, device: torch.device) -> VideoNet:
    with torch.device(device):
        model = create_model(spec.name, CLASSES)
    alone = replace(recipe, sync_bn=False)  # each process for itself
    model = prepare_model(model.to(device), alone, device).train()
    for module in freeze(model, recipe.freeze_backbone, recipe.freeze_bn):
        module.training = False
    return model


def _backward(model: VideoNet, spec: ArchSpec, recipe: Recipe, videos: int) -> None:
    device = next(model.parameters()).device
    inputs = torch.randn(videos * recipe.num_seg, *spec.clip_shape, device=device)
    if device.type == "meta":  # has no mixed precision
        logits = model(inputs)
    else:
        logits = video_logits(model, inputs, recipe.num_seg, recipe.amp)
    logits.sum().backward()


class PeakMemory(TorchDispatchMode):
    """Follows the bytes that tensors made inside it hold at once, on the meta device too.

    Args:
        known: tensors from outside, which do not count.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _shown(number: int) -> str:
    return f"{number / 1e6:.0f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"
