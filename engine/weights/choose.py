"""What `--weights` means: which file of pretrained weights a training starts from."""

from pathlib import Path

from engine.files import CheckpointError
from engine.weights.load import load_weights
from engine.weights.sources import (
    WEIGHT_SOURCES,
    WeightSource,
    get_source,
    present_file,
    sources_for,
)
from models import ArchError, ArchSpec, VideoNet

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
    path = Path(asked).expanduser().resolve()
    try:
        source = get_source(asked)
    except ArchError as error:
        if path.exists():
            return path
        there = ", ".join(sorted(p.name for p in folder.glob("*") if p.is_file())) or "nothing"
        there = (
            f"in {folder} there is {there} (python scripts/weights.py list says what can be had)"
        )
        if path.suffix:
            raise CheckpointError(f"no weights {path}: there is no such file; {there}") from None
        raise ArchError(f"{error}; {there}") from None
    found = present_file(source, folder)
    if found is None:
        raise CheckpointError(f"{asked} is not in {folder}; {how_to_get(source, folder)}")
    return found


def name_of(path: Path | None) -> str:
    """What a checkpoint calls the weights that its training began with: the name of the source
    that has such a file, else the file's own, or "none"."""
    if path is None:
        return NO_WEIGHTS
    named = (source.name for source in WEIGHT_SOURCES if path.name in source.files)
    return next(named, path.name)


def how_to_get(source: WeightSource, folder: Path) -> str:
    """What a user does to have the file of a source."""
    if source.by_hand:
        names = " or ".join(source.files)
        return f"it cannot be fetched: find {names} ({source.by_hand}) and put it into {folder}"
    return f"python scripts/weights.py get {source.name}"


def start_from_weights(model: VideoNet, asked: str, folder: Path) -> str:
    """Carries out `--weights` for a new network; returns what was loaded, or that nothing was."""
    path = find_weights(model.spec, asked, folder)
    if path is not None:
        return f"weights: {path}: {load_weights(model, path)}"
    names = [source.name for source in sources_for(model.spec)] if asked == AUTO else []
    hint = f"; scripts/weights.py has {', '.join(names)}" if names else ""
    return "no weights: training from scratch" + hint
