"""Checkpoints: written whole or not at all, read without executing anything, refused readably.

A file is a dict with the reference implementation's keys (`epoch, arch, state_dict, best_prec1,
best_loss, optimizer`) and, from this code, what is needed to use the weights rightly.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.specs import unnamed_classes
from engine import __version__
from engine.files import CheckpointError, read_file, strip_wrappers
from engine.metrics import EpochStats
from models import ArchSpec
from video_transforms import INVERTED, NO_FLIP, PLAIN

BEST, LAST = "model_best.pth.tar", "last.pth.tar"
BEST_AVERAGE = "model_best_ema.pth.tar"  # the weights' moving average at its best
FORMAT_VERSION = 1


def make_checkpoint(
    spec: ArchSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule_state: dict,
    epoch: int,
    best_prec1: float,
    best_loss: float,
    metadata: dict,
    best_ema: float = -1.0,
) -> dict:
    """A checkpoint's content.

    Args:
        epoch: epochs that are done.
        best_prec1, best_loss: of the best model so far, percent and nats.
        best_ema: of the best average of weights so far, percent.
        metadata: `dataset`, `split`, `class_names`, `flow_bound` (or None), `mirror`, the rule, and
            the data's `fingerprint`.
    """
    return {
        # the reference implementation's keys
        "epoch": epoch,
        "arch": spec.name,
        "state_dict": model.state_dict(),
        "best_prec1": best_prec1,
        "best_loss": best_loss,
        "optimizer": optimizer.state_dict(),
        # this code's
        "best_ema": best_ema,
        "scheduler": schedule_state,
        "input": spec.describe_input(),
        **metadata,
        "format_version": FORMAT_VERSION,
        "versions": {"torch": str(torch.__version__), "late_temporal": __version__},
    }


def load_checkpoint(path: Path, spec: ArchSpec, model: nn.Module, class_names: list[str]) -> dict:
    """Loads the weights of a checkpoint of this architecture and classes, and returns its content.

    Files of the reference implementation load too; they say nothing of classes or input.
    Raises CheckpointError with everything that differs.
    """
    content = read_file(path)
    if not isinstance(content.get("state_dict"), Mapping):
        raise CheckpointError(
            f"{path} has no 'state_dict': it is no checkpoint of a training. "
            "Start from pretrained weights with --weights"
        )
    try:
        state_dict = strip_wrappers(content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    differences = _differences(content, state_dict, spec, model, class_names)
    if differences:
        raise CheckpointError(f"{path} does not fit:\n  " + "\n  ".join(differences))
    model.load_state_dict(state_dict)
    return content


def _differences(
    content: dict,
    state_dict: Mapping[str, Tensor],
    spec: ArchSpec,
    model: nn.Module,
    class_names: list[str],
) -> list[str]:
    # format, architecture
    found = metadata_faults(content)
    if found:
        return found
    version = content.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        found.append(f"format: version {version} in the file, this code reads {FORMAT_VERSION}")
    arch = content.get("arch", spec.name)
    if arch != spec.name:
        return found + [f"architecture: {arch} in the file, {spec.name} asked for"]
    # classes
    theirs = content.get("class_names", class_names)
    bias = state_dict.get("fc_action.bias")
    classes = len(bias) if bias is not None and bias.ndim == 1 else len(theirs)
    for number in (classes, len(theirs)):
        if number != len(class_names):
            return found + [f"classes: {number} in the file, {len(class_names)} in the dataset"]
    if unnamed_classes(len(theirs)) in (theirs, class_names):
        theirs = class_names  # one side does not know their names
    found += [
        f"class {label}: '{a}' in the file, '{b}' in the dataset"
        for label, (a, b) in enumerate(zip(theirs, class_names, strict=True))
        if a != b
    ]
    # input, weights
    ours = spec.describe_input()
    found += [
        f"input {key}: {value} in the file, {ours.get(key)} in this code"
        for key, value in content.get("input", ours).items()
        if value != ours.get(key)
    ]
    return found + state_dict_differences(state_dict, model)


def state_dict_differences(state_dict: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """What keeps a state dict from loading strictly: missing, unknown, misshapen, or no numbers."""
    own = model.state_dict()
    found = _some("missing", [key for key in own if key not in state_dict])
    found += _some("unknown", [key for key in state_dict if key not in own])
    shared = {key: state_dict[key] for key in own if key in state_dict}
    found += _some(
        "shape",
        [
            f"{key} {tuple(value.shape)} in the file, {tuple(own[key].shape)} here"
            for key, value in shared.items()
            if value.shape != own[key].shape
        ],
    )
    found += _some(
        "type",
        [
            f"{key} {value.dtype} in the file, {own[key].dtype} here"
            for key, value in shared.items()
            if not fits_type(value, own[key].dtype)
        ],
    )
    # Shapes and types first: only what fits is worth looking into.
    return found or _some("not finite", [k for k, v in shared.items() if not v.isfinite().all()])


def fits_type(value: Tensor, dtype: torch.dtype) -> bool:
    """Whether a file's tensor can stand for one of this type: real numbers for real numbers."""
    is_plain = value.layout == torch.strided and value.device.type == "cpu"
    same = value.dtype.is_floating_point if dtype.is_floating_point else value.dtype == dtype
    return is_plain and not value.is_quantized and same


def _some(kind: str, entries: list[str], most: int = 5) -> list[str]:
    """The first few entries, and how many more there are."""
    lines = [f"{kind}: {entry}" for entry in entries[:most]]
    return lines + ([f"{kind}: and {len(entries) - most} more"] if len(entries) > most else [])


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_progress(value: Any) -> bool:
    if value is None:
        return True
    if not _is_named(value) or not {"result", "permutation"} <= value.keys():
        return False
    result, order = value["result"], value["permutation"]
    counts = {field.name: field.type for field in fields(EpochStats)}
    return (
        isinstance(order, Tensor)
        and order.dtype == torch.int64
        and order.ndim == 1
        and sorted(order.tolist()) == list(range(len(order)))
        and _is_named(result)
        and result.keys() <= counts.keys()
        and all(_is_finite(number) and number >= 0 for number in result.values())
        and all(_is_count(number) for key, number in result.items() if counts[key] is int)
        and result.get("videos", 0) <= len(order)
    )


# Key -> (what it must be, how to tell).
EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format_version": ("a whole number", _is_count),
    "epoch": ("a whole number", _is_count),
    "arch": ("a name", lambda value: isinstance(value, str)),
    "dataset": ("a name", lambda value: isinstance(value, str)),
    "split": ("a whole number", _is_count),
    "seed": ("a whole number", _is_count),
    "best_prec1": ("a number", _is_number),
    "best_loss": ("a number", _is_number),
    "best_ema": ("a number", _is_number),
    "class_names": ("a list of names", _is_names),
    "input": ("a table of names", _is_named),
    "flags": ("a table of names", _is_named),
    "fingerprint": ("a fingerprint of data", _is_named),
    "mirror": ("how clips are flipped", lambda value: value in (PLAIN, INVERTED, NO_FLIP)),
    "flow_bound": ("a number or nothing", lambda value: value is None or _is_finite(value)),
    "optimizer": ("an optimizer's state", _is_named),
    "scheduler": ("a schedule's state", _is_named),
    "learner": ("a table of names", _is_named),
    "progress": ("a place in an epoch", _is_progress),
    "random_states": ("a list, one for each process", lambda value: isinstance(value, list)),
}


def is_like(value: Any, ours: Any) -> bool:
    """Whether a saved state is built as ours: the same fields, numbers where we have numbers."""
    if isinstance(ours, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and is_like(value[key], own) for key, own in ours.items()
        )
    if isinstance(ours, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(ours)
        return same and all(map(is_like, value, ours))
    if isinstance(ours, bool | str):
        return isinstance(value, type(ours))
    if ours is None:
        return value is None or isinstance(value, bool) or _is_number(value)
    return _is_number(value)


def metadata_faults(content: Mapping[str, Any]) -> list[str]:
    """What of a checkpoint's content is not what its key promises, a line each."""
    return [
        f"{key}: {_shown(content[key])} in the file, where {what} belongs"
        for key, (what, is_right) in EXPECTED.items()
        if key in content and not is_right(content[key])
    ]


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."
