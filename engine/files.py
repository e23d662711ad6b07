"""Where files lie, and how they are read safely and written whole.

A file is written under a temporary name beside its own and renamed, so that a reader sees the
earlier file or the whole new one. PyTorch files are read without executing anything.
"""

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from datasets.files import written_whole
from models.archs import ArchError

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_CACHE = Path("<default>")  # what --cache means without a folder
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


def resolve(given: Path | None, default: str) -> Path:
    """A given path, seen from the current folder; a default lies in the repository."""
    return given.expanduser().resolve() if given is not None else ROOT / default


def run_folder(output: Path | None, dataset: str, arch: str, split: int) -> Path:
    """Where a run's checkpoints and logs lie."""
    return resolve(output, "checkpoint") / f"{dataset}_{arch}_split{split}"


def save_atomically(payload: dict, path: Path) -> None:
    """Writes a PyTorch file, to the disk itself; raises OSError if it cannot be written."""
    with written_whole(path, sync=True) as file:
        watched = _Watched(file)
        try:
            torch.save(payload, watched)
        except RuntimeError as error:  # torch's own, whatever the reason
            if watched.error is not None:
                raise OSError(watched.error.errno, watched.error.strerror, str(path)) from None
            raise OSError(f"cannot write {path}: {error}") from error


class _Watched:
    """A file to write in, that remembers why it could not be written."""

    def __init__(self, file: IO[bytes]):
        self.file, self.flush = file, file.flush
        self.error: OSError | None = None

    def write(self, data: object) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


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


def refuse_bomb(path: Path, most: float = 1) -> None:
    """Raises CheckpointError for a zip file that would unpack to more than `most` times its size.

    PyTorch stores tensors as they are, so a file of its own is never smaller than its content.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = path.stat().st_size
    if unpacked > most * size:
        raise CheckpointError(
            f"{path}: a file of {size} bytes that would unpack to {unpacked}; files of this kind "
            "are never compressed so much, so it is not read"
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


def append_whole(path: Path, lines: Sequence[str]) -> None:
    """Appends the lines, or, on a full disk (OSError), leaves the file as it was."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def write_json(path: Path, content: dict) -> None:
    """Writes indented JSON, whole or not at all."""
    with written_whole(path, "w") as file:
        file.write(json.dumps(content, indent=2) + "\n")


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Without what DataParallel, DDP and torch.compile put in front of names, and what that was."""
    stripped, removed = {}, set()
    for key, value in state_dict.items():
        name = key
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        removed.add(key.removesuffix(name))
        stripped[name] = value
    if len(stripped) < len(state_dict):
        raise ArchError("two of its entries have the same name but for a prefix such as module.")
    return stripped, " ".join(sorted(removed - {""}))
