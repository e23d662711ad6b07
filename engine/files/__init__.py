"""Where files lie, and how they are read safely and written whole.

A file is written under a temporary name beside its own and renamed, so that a reader sees the
earlier file or the whole new one. PyTorch files are read without executing anything: the checksums
of the zip archive, what the pickle calls, how far it unfolds and what tensors claim are checked.
"""

import contextlib
import io
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

from datasets.files import DataError, check_file, printable, said_plainly, written_whole
from engine.files.pickles import PickleError, check_pickle, container_items, first_call
from models.archs import ArchError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_CACHE = Path("<default>")  # what --cache means without a folder
LEGACY_PICKLES = 5  # of a file from before PyTorch 1.6, in front of its numbers
MOST_STRETCHED = 16  # times its file's size that tensors may claim: views of one another
MOST_KEY = 1000  # characters of a tensor's name
PLAIN_CALLS = ("torch.", "collections.", "numpy.", "_codecs.")  # that data are made of
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
    """A torch file's dict, on the CPU.

    Raises CheckpointError if the file is missing, no regular file, damaged (files since PyTorch 1.6
    hold checksums, older ones do not), no dict, or holds anything but plain data and tensors.
    """
    called: list[str] = []
    try:
        check_file(path, what)
        _check_torch_file(path, called)
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except DataError as error:
        raise CheckpointError(f"{error}; {_others(path)}") from None
    except (CheckpointError, PickleError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; {_others(path)}") from None
    except Exception as error:  # the unpickler raises whatever broken bytes lead it to
        raise CheckpointError(
            f"cannot read {path}: truncated or not a checkpoint ({_reason(error, called)}); "
            + _others(path)
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    _check_claims(path, content)
    return content


def check_zip(path: Path, most: float = 1) -> bool:
    """Whether a file is a zip archive; raises CheckpointError for a damaged or hostile one.

    Each part must have its checksum (CRC-32) and a name of its own, and together they may unpack to
    `most` times the file's size: PyTorch stores tensors as they are, so a file of its own is never
    smaller than its content. Raises what zipfile raises for an archive that it cannot open.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # how PyTorch and NumPy tell
            return False
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        size, names = path.stat().st_size, archive.namelist()
        if unpacked > most * size:
            raise CheckpointError(
                f"a file of {size} bytes that would unpack to {unpacked}; files of this kind "
                "are never compressed so much, so it is not read"
            )
        if any(entry.comment for entry in archive.infolist()):  # it may hide the parts after it
            raise CheckpointError("the file is damaged: a part of its zip archive has a comment")
        if len(set(names)) < len(names):
            raise CheckpointError("two parts of its zip archive have the same name")
        try:
            damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            damaged = str(error)
    if damaged:
        raise CheckpointError(
            f"the file is damaged: its part '{printable(damaged)}' is not what its checksum says"
        )
    return True


def _check_torch_file(path: Path, called: list[str]) -> None:
    """Checks the archive's parts, and each pickle; `called` becomes what they want to call."""
    if check_zip(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    check_pickle(io.BytesIO(archive.read(name)), called)
        return
    try:
        with open(path, "rb") as file:
            for _ in range(LEGACY_PICKLES):
                check_pickle(file, called)
    except PickleError:
        raise
    except Exception:  # pickletools knows as little as an unpickler what broken bytes are
        raise ValueError("its bytes are no PyTorch file") from None


def _check_claims(path: Path, content: dict) -> None:
    """Raises CheckpointError for tensors that are not plain, or larger than their file."""
    tensors = {id(v): (key, v) for key, v in container_items(content) if isinstance(v, Tensor)}
    claimed = 0
    for key, value in tensors.values():
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.is_quantized:
            kind = f"{value.layout}, {value.dtype}, {value.device}".replace("torch.", "")
            raise CheckpointError(f"{path}: '{printable(key[:100])}' is no plain tensor ({kind})")
        claimed += value.numel() * value.element_size()
    if claimed > MOST_STRETCHED * path.stat().st_size:
        raise CheckpointError(
            f"{path}: its tensors would hold {claimed} bytes, far more than the file: a few "
            "numbers are stretched over a large shape"
        )


def _others(path: Path) -> str:
    """What could be used instead of a checkpoint: those beside it, the newest first."""
    beside = [p for p in path.parent.glob("*.pth*") if p != path and p.suffix != ".tmp"]
    beside = [p for p in beside if p.is_file()]
    newest = sorted(beside, key=lambda p: p.stat().st_mtime, reverse=True)
    if not newest:
        return f"there are no others in {path.parent}"
    return f"there are, newest first: {', '.join(p.name for p in newest[:5])}"


def _reason(error: Exception, called: list[str]) -> str:
    """The line of a loading error that says what is wrong; torch's advice is left out."""
    # torch leaves "builtins." out, and knows no newer pickles' instructions
    refused = re.search(r"(?:GLOBAL|class) (\S+)", str(error))
    named = [name for name in called if refused and name.removeprefix("builtins.") == refused[1]]
    unsafe = next(iter(named), None) or first_call(called, PLAIN_CALLS)
    if unsafe:
        return f"it wants to call {printable(unsafe)}; a file's calls are never executed"
    text = str(error).strip() or type(error).__name__
    return "its bytes are no PyTorch file" if "weights_only" in text else text.splitlines()[0]


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefixes that DataParallel, DDP and torch.compile put in front."""
    return strip_prefixes(check_tensors(state_dict))[0]


def check_tensors(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same; raises CheckpointError unless it maps names of usual length to tensors."""
    for key, value in state_dict.items():
        named = isinstance(key, str) and len(key) <= MOST_KEY
        if not named or not isinstance(value, Tensor):
            entry = printable(repr(key)[:100])
            raise CheckpointError(f"the entry {entry} is no named tensor: this holds no weights")
    return state_dict


def append_whole(path: Path, lines: Sequence[str]) -> None:
    """Appends the lines, or, on a full disk (OSError), leaves the file as it was."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with said_plainly(path), open(path, "a", encoding="utf-8") as file:
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
