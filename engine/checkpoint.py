"""Checkpoints: written whole or not at all, read without executing anything, refused readably.

A file is a dict with the reference implementation's keys (`epoch, arch, state_dict, best_prec1,
best_loss, optimizer`) and, from this code, what is needed to use the weights rightly.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets import unnamed_classes
from engine import __version__
from models import ArchSpec

BEST, LAST = "model_best.pth.tar", "last.pth.tar"
FORMAT_VERSION = 1
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and DDP, torch.compile
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
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever broken bytes lead it to
        raise CheckpointError(
            f"cannot read {path}: truncated or not a checkpoint ({_reason(error)}); {_others(path)}"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def _others(path: Path) -> str:
    """What could be used instead of a checkpoint: those beside it, the newest first."""
    beside = [p for p in path.parent.glob("*.pth*") if p != path and p.suffix != ".tmp"]
    newest = sorted(beside, key=lambda p: p.stat().st_mtime, reverse=True)
    if not newest:
        return "train first, or name a file"
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
    stripped = {}
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"the entry {key!r} is no named tensor: this holds no weights")
        while key.startswith(WRAPPERS):
            key = key.split(".", 1)[1]
        stripped[key] = value
    return stripped


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
) -> dict:
    """A checkpoint's content.

    Args:
        epoch: epochs that are done.
        best_prec1, best_loss: of the best model so far, percent and nats.
        about: `dataset`, `split`, `class_names`, `flow_bound` (or None), `mirror`, the rule, and
            the data's `fingerprint`.
    """
    return {
        "epoch": epoch,
        "arch": spec.name,
        "state_dict": model.state_dict(),
        "best_prec1": best_prec1,
        "best_loss": best_loss,
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
    state_dict = strip_wrappers(content["state_dict"])
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
    found = []
    version = content.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        found.append(f"format: version {version} in the file, this code reads {FORMAT_VERSION}")
    arch = content.get("arch", spec.name)
    if arch != spec.name:
        return found + [f"architecture: {arch} in the file, {spec.name} asked for"]
    classes = state_dict.get("fc_action.bias")
    if isinstance(classes, Tensor) and len(classes) != len(class_names):
        return found + [f"classes: {len(classes)} in the file, {len(class_names)} in the dataset"]
    theirs = content.get("class_names", class_names)
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
    """What keeps a state dict from loading strictly: missing, unknown and misshapen entries."""
    own = model.state_dict()
    found = _some("missing", [key for key in own if key not in state_dict])
    found += _some("unknown", [key for key in state_dict if key not in own])
    shared = [key for key in own if key in state_dict]
    return found + _some(
        "shape",
        [
            f"{key} {tuple(state_dict[key].shape)} in the file, {tuple(own[key].shape)} here"
            for key in shared
            if state_dict[key].shape != own[key].shape
        ],
    )


def _some(kind: str, entries: list[str], most: int = 5) -> list[str]:
    """The first few entries, and how many more there are."""
    lines = [f"{kind}: {entry}" for entry in entries[:most]]
    return lines + ([f"{kind}: and {len(entries) - most} more"] if len(entries) > most else [])
