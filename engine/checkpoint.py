"""Checkpoints: written whole or not at all, read without executing anything, refused readably.

A file is a dict with the reference implementation's keys (`epoch, arch, state_dict, best_prec1,
best_loss, optimizer`) and, from this code, what is needed to use the weights rightly.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets import unnamed_classes
from engine import __version__
from engine.metadata import metadata_faults
from models import ArchSpec
from models.file_kinds import strip_prefixes

BEST, LAST = "model_best.pth.tar", "last.pth.tar"
BEST_AVERAGE = "model_best_ema.pth.tar"  # the weights' moving average at its best
FORMAT_VERSION = 1
# Old files may hold their accuracies as NumPy numbers, under NumPy 1's name for them.
_SCALAR = np._core.multiarray.scalar
_NUMPY_SCALARS = [
    np.dtype,
    *(type(np.dtype(code)) for code in ("f4", "f8", "i8")),
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
]


class CheckpointError(ValueError):
    """A file that cannot be used; the message says why and what to do."""


def save_atomically(payload: dict, path: Path) -> None:
    """Writes to a temporary name beside `path`, to the disk itself, then renames.

    Killed at any moment, or on a full disk (OSError), the earlier file is still there, whole.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # how torch.save says that it cannot write
        temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error}") from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def read_file(path: Path, what: str = "checkpoint") -> dict:
    """A torch file's dict, on the CPU; raises CheckpointError if it is missing or not one."""
    if not path.is_file():
        raise CheckpointError(f"no {what} {path}; {_others(path)}")
    try:
        refuse_bomb(path)
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises whatever broken bytes lead it to
        raise CheckpointError(
            f"cannot read {path}: truncated or not a checkpoint ({_reason(error)}); {_others(path)}"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def refuse_bomb(path: Path) -> None:
    """Raises CheckpointError for a zip file that would unpack to more than it holds.

    PyTorch stores tensors as they are, so a file of its own is never smaller than its content.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes and would unpack to {unpacked}; PyTorch does "
            "not compress its files, so this is none of them and is not read"
        )


def _others(path: Path) -> str:
    """What could be used instead of a checkpoint: those beside it, the newest first."""
    beside = [p for p in path.parent.glob("*.pth*") if p != path and p.suffix != ".tmp"]
    newest = sorted(beside, key=lambda p: p.stat().st_mtime, reverse=True)
    if not newest:
        return f"there are no others in {path.parent}"
    return f"there are, newest first: {', '.join(p.name for p in newest)}"


def _reason(error: Exception) -> str:
    """The line of a loading error that says what is wrong; torch's advice is left out."""
    unsafe = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
    if unsafe:
        return f"it holds {unsafe[1]}, which is no plain data and is not executed"
    text = str(error).strip() or type(error).__name__
    return "its bytes are no PyTorch file" if "weights_only" in text else text.splitlines()[0]


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefixes that DataParallel, DDP and torch.compile put in front."""
    return strip_prefixes(check_tensors(state_dict))[0]


def check_tensors(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same; raises CheckpointError unless it maps names to tensors."""
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"the entry {key!r} is no named tensor: this holds no weights")
    return state_dict


def describe_input(spec: ArchSpec) -> dict:
    """The input specification as plain values, to travel with the weights."""
    fields = asdict(spec.input) | {"frames": spec.frames, "modality": spec.modality}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


def make_checkpoint(
    spec: ArchSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule_state: dict,
    epoch: int,
    best_prec1: float,
    best_loss: float,
    about: dict,
    best_ema: float = -1.0,
) -> dict:
    """A checkpoint's content.

    Args:
        epoch: epochs that are done.
        best_prec1, best_loss: of the best model so far, percent and nats.
        best_ema: of the best average of weights so far, percent.
        about: `dataset`, `split`, `class_names`, `flow_bound` (or None), `mirror`, the rule, and
            the data's `fingerprint`.
    """
    return {
        "epoch": epoch,
        "arch": spec.name,
        "state_dict": model.state_dict(),
        "best_prec1": best_prec1,
        "best_loss": best_loss,
        "best_ema": best_ema,
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule_state,
        "input": describe_input(spec),
        **about,
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
    found = metadata_faults(content)
    if found:
        return found
    version = content.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        found.append(f"format: version {version} in the file, this code reads {FORMAT_VERSION}")
    arch = content.get("arch", spec.name)
    if arch != spec.name:
        return found + [f"architecture: {arch} in the file, {spec.name} asked for"]
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
    ours = describe_input(spec)
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
