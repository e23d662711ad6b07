"""A file of weights -> the trained network in it, with all that applying it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.models import get_model_weights

from datasets.preparation import Preparation
from datasets.specs import unnamed_classes
from engine.checkpoint import BEST, load_checkpoint, metadata_faults
from engine.files import CheckpointError, strip_wrappers
from engine.weights.formats import identify
from engine.weights.load import load_pretrained, read_state_dict
from engine.weights.shared import is_shared
from engine.weights.sources import WEIGHT_SOURCES
from models import ArchError, ArchSpec, VideoNet, create_model, get_arch, list_archs
from models.backbones.base import CLASSIFIER
from video_transforms import INVERTED, PLAIN


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and what its file says of the clips that it expects.

    Attributes:
        path: the file.
        model: on the CPU, in evaluation mode.
        classes: their names, by number.
        flip: how clips are flipped in ten crops, see `video_transforms.views`.
        fps: frames a second of the training's videos; None where that is not recorded.
        preparation: the size that frames were extracted at, the flow engine and its bound.
        recorded: whether the file says how its data were prepared.
    """

    path: Path
    model: VideoNet
    classes: tuple[str, ...]
    flip: str
    fps: float | None
    preparation: Preparation
    recorded: bool

    @property
    def spec(self) -> ArchSpec:
        return self.model.spec


def load_network(path: Path, modality: str | None = None) -> TrainedNetwork:
    """The network of a run's folder (its best model), of a checkpoint, of a shared folder, or of a
    published file of weights that has a classifier.

    Args:
        modality: "rgb" or "flow" if it must be that.

    Raises CheckpointError or ArchError, naming the file, for one that holds no such network.
    """
    path = path.expanduser()
    if path.is_dir() and not is_shared(path):
        path = path / BEST
    state_dict, content = read_state_dict(path)
    network = _trained(path, content) if "arch" in content else _published(path, state_dict)
    if modality not in (None, network.spec.modality):
        raise CheckpointError(
            f"{path} is {network.spec.name}, a {network.spec.modality} network, where a {modality} "
            "network belongs"
        )
    return network


def _trained(path: Path, content: dict) -> TrainedNetwork:
    """The network of a training's checkpoint."""
    if faults := metadata_faults(content):
        raise CheckpointError(f"{path} does not fit:\n  " + "\n  ".join(faults))
    try:
        spec = get_arch(content["arch"])
    except ArchError as error:
        raise CheckpointError(f"{path}: {error}") from None
    bias = strip_wrappers(content["state_dict"]).get(f"{CLASSIFIER}.bias")
    if bias is None or bias.ndim != 1 or len(bias) == 0:
        raise CheckpointError(f"{path} has no classifier '{CLASSIFIER}': it is no whole network")
    classes = content.get("class_names", unnamed_classes(len(bias)))
    model = create_model(spec.name, len(classes))
    load_checkpoint(path, spec, model, classes)
    data = content.get("fingerprint", {})
    prepared = data.get("preparation") or {}
    known = {key: prepared[key] for key in ("width", "height", "flow", "bound") if key in prepared}
    if content.get("flow_bound"):
        known["bound"] = content["flow_bound"]
    preparation = Preparation(**known)
    return TrainedNetwork(
        path,
        model.eval(),
        tuple(classes),
        content.get("mirror", PLAIN),  # the reference's files do not say
        data.get("fps"),
        preparation,
        recorded=bool(prepared),
    )


def _published(path: Path, state_dict: Mapping[str, torch.Tensor]) -> TrainedNetwork:
    """The network of a published file: its backbone, averaged, and its classifier."""
    try:
        found = identify(state_dict)
    except ArchError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if found.backbone is None or found.classes is None:
        raise CheckpointError(
            f"{path} holds no network to apply: it names no architecture, or has no classifier"
        )
    model = create_model(_published_arch(found.backbone, state_dict), found.classes)
    try:
        load_pretrained(model, state_dict)
    except ArchError as error:
        raise CheckpointError(f"{path}: {error}") from None
    classes = unnamed_classes(found.classes)
    if found.classes == 400:  # Kinetics-400's, in the order that all publishers use
        classes = get_model_weights("r3d_18")["DEFAULT"].meta["categories"]
    flip = INVERTED if model.spec.modality == "flow" else PLAIN
    return TrainedNetwork(
        path, model.eval(), tuple(classes), flip, None, Preparation(), recorded=False
    )


def _published_arch(backbone: str, state_dict: Mapping[str, torch.Tensor]) -> str:
    """The row that averages the backbone, of the modality that the file's first layer sees."""
    stem = next(value for value in state_dict.values() if value.ndim == 5)
    modality = "rgb" if stem.shape[1] == 3 else "flow"
    lengths = [s.frames for s in WEIGHT_SOURCES if (s.backbone, s.modality) == (backbone, modality)]
    rows = [get_arch(name) for name in list_archs()]
    averages = [r for r in rows if r.backbone == backbone and r.head.endswith("average")]
    own = [row for row in averages if row.modality == modality] or averages
    return min(own, key=lambda row: row.frames not in lengths).name


def average_networks(
    first: TrainedNetwork, second: TrainedNetwork, share: float
) -> dict[str, torch.Tensor]:
    """(1 - share) of one network's weights and batch statistics and `share` of another's; whole
    numbers are the second's. Raises CheckpointError unless both are of one network and classes."""
    if first.spec != second.spec or first.classes != second.classes:
        raise CheckpointError(
            f"{first.path} is {first.spec.name} with {len(first.classes)} classes, {second.path} "
            f"{second.spec.name} with {len(second.classes)}; only weights of one network and the "
            "same classes can be averaged"
        )
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    return {
        key: torch.lerp(ours[key], value, share) if value.is_floating_point() else value
        for key, value in theirs.items()
    }
