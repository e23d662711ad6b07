"""What `--speed max` tries: each variant is timed and compared with the one before it.

The faster right one is kept, and a line says so. A variant that fails is left out.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from engine.speed.presets import Speed, autocast
from models import VideoNet
from models.rewriting import fold_batch_norms, merge_groups, stems_to_depth

TOLERANCE = {"off": 1e-4, "bf16": 1e-2, "fp16": 1e-2}  # relative L2 norm of the difference
# The same of logits and norms of gradients in training: batch statistics multiply rounding, and
# another memory layout alone changes them by 2e-3.
TRAINING_TOLERANCE = {"off": 1e-2, "bf16": 1e-1, "fp16": 1e-1}
FASTER = 1.03  # times; less is noise
TURNS = 3  # that two variants take in turn
GAIN = 0.25  # of the work ahead that tuning saves, a careful guess
COMPILE_SECONDS = 60.0  # that a compilation takes, about


@dataclass
class Tried:
    """A network, what it gave, and how many times as fast as the plain one it is."""

    model: VideoNet
    output: Tensor
    gain: float = 1.0


class InferenceEncoder:
    """`model.encode` as fast as `speed` allows: clips (N, C, T, H, W) -> float32 (N, ...).

    With `speed.compile` the first batch is the one that variants are tried on. The model itself
    stays as it is.

    Args:
        views: clips ahead; where they are too few to pay for the tuning, there is none. None: any
            number.
    """

    def __init__(self, model: VideoNet, speed: Speed, views: int | None = None):
        self.model, self.speed, self.views = model, speed, views
        self._tuned = not speed.compile

    def __call__(self, inputs: Tensor) -> Tensor:
        if not self._tuned:
            self._tuned = True
            self.model = tune(self.model, inputs, self.speed, self.views)
        return encode(self.model, inputs, self.speed)


def encode(model: VideoNet, inputs: Tensor, speed: Speed) -> Tensor:
    """What the network makes of clips below its head, float32 (N, ...)."""
    with autocast(inputs.device, speed.amp):
        encoded = model.encode(inputs)
    return encoded.float()


def inference_steps(inputs: Tensor) -> dict[str, Callable[[VideoNet], None]]:
    """What is tried, one after the other: name -> what changes a network in place."""
    options = {"freezing": True, "triton.cudagraphs": inputs.is_cuda}
    return {
        "batch norms folded": partial(fold_batch_norms, inputs=inputs),
        "space-to-depth stem": partial(stems_to_depth, size=inputs.shape[2:]),
        "groups of 16": partial(merge_groups, width=16),
        "groups of 32": partial(merge_groups, width=32),
        "compiled": partial(compile_encoder, options=options),
    }


def compile_encoder(model: VideoNet, options: dict) -> None:
    """Compiles the parts that `encode` passes, at their first call; `options` are inductor's."""
    for name in model.encoder_parts():
        model.get_submodule(name).compile(dynamic=False, options=options)


def tune(model: VideoNet, inputs: Tensor, speed: Speed, views: int | None) -> VideoNet:
    """The fastest variant of a network for batches like `inputs`; prints what it kept."""

    def run(candidate: VideoNet) -> Tensor:
        return encode(candidate, inputs, speed)

    with torch.inference_mode(False), torch.no_grad():  # frozen weights need no version counters
        inputs = inputs.clone()
        plain = Tried(model, run(model).clone())
        steps = inference_steps(inputs)
        passes = None if views is None else views / len(inputs)
        if not pays(speed, time_pass(model, run), passes, len(steps)):
            return model
        best, tried = plain, []
        for name, change in steps.items():
            best, verdict = try_step(best, plain, name, change, run, TOLERANCE[speed.amp])
            tried += [verdict] if verdict else []
    print_verdicts(speed, best, tried)
    return best.model


def pays(speed: Speed, seconds: float, passes: float | None, steps: int) -> bool:
    """Whether the work ahead, `passes` of `seconds` each (None: any number), pays for trying so
    many steps; if it does not, a line says so."""
    ahead = float("inf") if passes is None else seconds * passes
    cost = (2 * TURNS + 1) * steps * seconds + COMPILE_SECONDS
    if GAIN * ahead >= cost:
        return True
    print(
        f"--speed {speed.preset}: no variants are tried, about {ahead:.0f} s of work would "
        f"not pay for {cost:.0f} s",
        flush=True,
    )
    return False


def try_step(
    best: Tried,
    plain: Tried,
    name: str,
    change: Callable[[VideoNet], None],
    run: Callable[[VideoNet], Tensor],
    tolerance: float,
) -> tuple[Tried, str]:
    """The better of a variant and the same changed, and what was found, or "" for no change."""
    try:
        candidate = copy.deepcopy(best.model)
        if change(candidate) == 0:  # nothing in this network to change
            return best, ""
        output = run(candidate).clone()  # compiles, and takes memory
        gain = gain_of(best.model, candidate, run)
    except Exception as error:  # a compiler's may be of any kind; the plainer variant works
        return best, f"{name}: failed ({str(error).strip().splitlines()[0][:80]})"
    difference = float((output - plain.output).norm() / plain.output.norm())
    if not difference <= tolerance:
        return best, f"{name} x{gain:.2f}, not kept: differs by {difference:.0e}"
    if gain < FASTER:
        return best, f"{name} x{gain:.2f}, not kept"
    kept = Tried(candidate, output, best.gain * gain)
    return kept, f"{name} x{gain:.2f}, kept (differs by {difference:.0e})"


def gain_of(one: VideoNet, other: VideoNet, run: Callable[[VideoNet], Tensor]) -> float:
    """How many times as fast the other is: the median over turns that both take one by one, so
    that whatever slows the machine for a while slows both."""
    return median(time_pass(one, run) / time_pass(other, run) for _ in range(TURNS))


def time_pass(model: VideoNet, run: Callable[[VideoNet], Tensor]) -> float:
    """Seconds that a pass takes."""
    start = time.perf_counter()
    _wait(run(model))
    return time.perf_counter() - start


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def print_verdicts(speed: Speed, best: Tried, tried: list[str]) -> None:
    """Prints what was tried and kept."""
    print(f"--speed {speed.preset}: {'; '.join(tried)}: {best.gain:.2f} times as fast", flush=True)


def compile_training(
    model: VideoNet,
    speed: Speed,
    clips: int,
    freeze_bn: bool = False,
    batches: int | None = None,
) -> None:
    """Compiles a network's training in place where that is faster and gives the same gradient.

    That is tried on a copy, with `clips` random ones; random numbers and batch statistics stay as
    they are. The compiled parts hold no random layers but stochastic depth.

    Args:
        freeze_bn: batch norms are in evaluation mode; they are folded while training.
        batches: that are ahead; where they are too few to pay for the trial, there is none. None:
            any number.
    """
    if not speed.compile:
        return
    options = {"efficient_conv_bn_eval_fx_passes": freeze_bn, "fallback_random": True}
    change = partial(compile_encoder, options=options)
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        channels, *size = model.spec.clip_shape
        inputs = torch.randn(clips, *size, channels, device=device).permute(0, 4, 1, 2, 3)
        if not speed.channels_last:
            inputs = inputs.contiguous()

        def run(candidate: VideoNet) -> Tensor:
            torch.manual_seed(0)  # the same dropout for all
            for parameter in candidate.parameters():
                parameter.grad = None
            with autocast(device, speed.amp):
                logits = candidate(inputs).float()
            logits.square().sum().backward()
            return torch.cat([logits.detach().flatten(), *_gradient_norms(candidate)])

        copied = copy.deepcopy(model)
        plain = Tried(copied, run(copied))
        if not pays(speed, time_pass(copied, run), batches, 1):
            return
        tolerance = TRAINING_TOLERANCE[speed.amp]
        best, verdict = try_step(plain, plain, "compiled", change, run, tolerance)
    if best is not plain:
        change(model)
    print_verdicts(speed, best, [verdict])


def _gradient_norms(model: VideoNet) -> Iterator[Tensor]:
    for parameter in model.parameters():
        if parameter.grad is not None:
            yield parameter.grad.norm()[None]
