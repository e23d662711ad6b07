"""Checkpoints: written whole or not at all, read without executing anything, refused readably.

A file is a dict with the reference implementation's keys (`epoch, arch, state_dict, best_prec1,
best_loss, optimizer`) and, from this code, what is needed to use the weights rightly.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from datasets import Split
from datasets.fingerprint import describe_list
from datasets.specs import unnamed_classes
from engine import __version__
from engine.files import CheckpointError, strip_wrappers
from engine.metrics import Count, EpochStats
from engine.weights.shared import read_weights_file
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
    content = read_weights_file(path)
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


def was_chosen_by(content: Mapping[str, Any], path: Path, split: Split) -> bool:
    """Whether a best model's epoch was chosen by some of the videos that now test it.

    Files of the reference implementation do not say by which videos.
    """
    flags, lists = content.get("flags", {}), content.get("fingerprint", {}).get("lists", {})
    if path.name not in (BEST, BEST_AVERAGE) or flags.get("epochs") == 1:
        return False
    judges = lists.get("val", {}).get("videos", ())
    return not set(judges).isdisjoint(describe_list(split.val)["videos"])


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
        f"input {key}: {shown(value)} in the file, {ours.get(key)} in this code"
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


# What a file may hold under a key, for msgspec.
_Name = Annotated[str, Meta(max_length=1000)]
_Percent = Annotated[float, Meta(ge=-1, le=100.001)]  # -1: of nothing yet
_Scalar = bool | Annotated[int, Meta(ge=-(2**53), le=2**53)] | float | _Name | None


class _Progress(TypedDict):
    result: dict[_Name, float]  # an EpochStats's fields
    permutation: Tensor  # int64 (videos,)


class _Fingerprint(TypedDict, total=False):
    hash: _Name
    dataset: _Name
    split: int
    modality: _Name
    classes: list[_Name]
    preparation: dict[_Name, _Scalar] | None
    fps: Annotated[float, Meta(gt=0, le=1000)]
    images_as: _Name | None
    lists: dict[_Name, dict[Literal["videos", "counts"], list[int]]]
    images: dict[_Name, dict[_Name, list[_Name] | float | None]]


# Key -> (what it must be, its type).
EXPECTED: dict[str, tuple[str, Any]] = {
    "format_version": ("a whole number", Count),
    "epoch": ("a number of epochs", Annotated[int, Meta(ge=0, le=2**31)]),
    "arch": ("a name", _Name),
    "dataset": ("a name", _Name),
    "split": ("a whole number", Count),
    "seed": ("a whole number", Count),
    "initial_weights": ("a name", _Name),
    "best_prec1": ("a percentage", _Percent),
    "best_loss": ("a loss", Annotated[float, Meta(ge=0)]),
    "best_ema": ("a percentage", _Percent),
    "class_names": ("a list of names", list[_Name]),
    "input": ("a table of names", dict[_Name, _Scalar | list[float]]),
    "flags": ("a table of names", dict[_Name, _Scalar]),
    "fingerprint": ("a fingerprint of data", _Fingerprint),
    "mirror": ("how clips are flipped", Literal[PLAIN, INVERTED, NO_FLIP]),
    "flow_bound": ("a number or nothing", Annotated[float, Meta(ge=-1e6, le=1e6)] | None),
    "optimizer": ("an optimizer's state", dict[_Name, Any]),
    "scheduler": ("a schedule's state", dict[_Name, Any]),
    "learner": ("a table of names", dict[_Name, Any]),
    "progress": ("a place in an epoch", _Progress | None),
    "random_states": ("a list, one for each process", list[dict[_Name, Any] | None]),
}


def metadata_faults(content: Mapping[str, Any]) -> list[str]:
    """What of a checkpoint's content is not what its key promises, a line each."""
    return [
        f"{key}: {shown(content[key])} in the file, where {what} belongs"
        for key, (what, kind) in EXPECTED.items()
        if key in content and not _is_a(kind, content[key])
    ]


def _is_a(kind: Any, value: Any) -> bool:
    if isinstance(value, Tensor | np.number):  # the reference implementation's accuracies
        return _is_number(value) and _is_a(kind, value.item())
    try:
        msgspec.convert(value, kind)
        return kind != EXPECTED["progress"][1] or value is None or _is_progress(**value)
    except (ValueError, TypeError, AttributeError, RecursionError):  # a tensor has no keys
        return False


def _is_progress(result: Mapping[str, float], permutation: Tensor) -> bool:
    stats = msgspec.convert(result, EpochStats)
    return (
        permutation.dtype == torch.int64
        and permutation.ndim == 1
        and sorted(permutation.tolist()) == list(range(len(permutation)))
        and result.keys() <= {field.name for field in fields(EpochStats)}
        and stats.top1_hits <= stats.top3_hits <= stats.videos <= len(permutation)
    )


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


def shown(value: Any) -> str:
    """A value of a file for a message: cut where it is long."""
    has_digits = isinstance(value, int) and value.bit_length() > 100  # perhaps thousands
    is_short = isinstance(value, str | int | float | list | tuple | None) and not has_digits
    return reprlib.repr(value) if is_short else type(value).__name__
