"""Fills a network from a published file or a checkpoint, and says what it did.

Loading may leave new exactly the network's head, and leave aside exactly the file's; anything
else that does not fit stops it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.files import strip_prefixes
from engine.weights.formats import CHECKPOINT, CLASSIFIER, FileKind, find_kind, published_kind
from models.archs import ArchError
from models.late_temporal import VideoNet

# What a checkpoint may hold beside its backbone.
HEADS = ("bert", "bert_slow", "bert_fast", "lstm", "linear", "NLB", CLASSIFIER)
HEADS += ("mapper", "mapper_slow", "mapper_fast")
AVERAGES = ("average", "two_pathway_average")
COUNTER = "num_batches_tracked"  # files of before PyTorch 0.4.1 lack it; nothing here reads it
WHOLE_NUMBERS = (COUNTER, "relative_position_index")


@dataclass(frozen=True)
class PretrainedReport:
    """What `load_pretrained` did, entry by entry.

    Attributes:
        kind: what the file is.
        matched: entries of the network that were loaded.
        missing: entries of the network's head that stay new.
        new_parts: what those belong to: "bert", "fc_action", the block that FRMB replaces, ...
        unexpected: entries of the file's head that were left aside.
        reshaped: "entry (from) -> (to): how", of the matched.
        stripped: the prefix that was taken off the names, or "".
    """

    kind: str
    matched: list[str]
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


def load_pretrained(model: VideoNet, state_dict: Mapping[str, Tensor]) -> PretrainedReport:
    """Fills the backbone, and what of the head fits as a whole, from a file's entries.

    Raises ArchError as `match_pretrained` does; the network is then as it was.
    """
    usable, report = match_pretrained(model, state_dict)
    model.load_state_dict(usable, strict=False)
    return report


def match_pretrained(
    model: VideoNet, state_dict: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], PretrainedReport]:
    """What of a file a network takes, under the network's names and in its shapes.

    Flow stems take the mean of RGB stems over their channels (arXiv 1608.00859). A published
    classifier is taken by the average heads, which it was trained for, at its number of classes.
    Raises ArchError with the first entries that do not fit, or that hold no usable numbers.
    """
    spec = model.spec
    entries, stripped = strip_prefixes(state_dict)
    try:
        kind = find_kind(entries)
        if kind.backbone not in (None, spec.backbone):
            raise ArchError(f"they are {kind.name}'s, the backbone is {spec.backbone}")
        check_values(entries)
        names = {key: kind.to_network(key) for key in entries}
        renamed = {names[key]: value for key, value in entries.items()}
        usable, reshaped = _fit(model, kind, renamed)
        missing = _check_complete(model, kind, renamed, usable)
    except ArchError as error:
        raise ArchError(f"these weights do not fit {spec.name}: {error}") from None
    report = PretrainedReport(
        kind=kind.name,
        matched=list(usable),
        missing=missing,
        new_parts=list(dict.fromkeys(_part(key, model) for key in missing)),
        unexpected=[key for key in entries if names[key] not in usable],
        reshaped=reshaped,
        stripped=stripped,
    )
    return usable, report


def to_published(model: VideoNet) -> dict[str, Tensor]:
    """The backbone, and an average head's classifier, under the names of published files.

    Raises ArchError for a backbone without published files or whose last block is another's.
    """
    spec = model.spec
    kind = published_kind(spec.backbone)
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


def check_values(entries: Mapping[str, Tensor]) -> None:
    """Raises ArchError naming the first entries that are no finite real numbers."""
    wrong = []
    for key, value in entries.items():
        if key.endswith(WHOLE_NUMBERS):
            continue
        if not value.is_floating_point() or value.layout != torch.strided:
            wrong.append(f"{key} has the type {str(value.dtype).removeprefix('torch.')}")
        elif not torch.isfinite(value.float()).all():  # as it will be used
            wrong.append(f"{key} holds NaN or infinity")
    if wrong:
        raise ArchError(f"{len(wrong)} entries are unusable: " + ", ".join(wrong[:4]))


def stem_key(model: nn.Module) -> str:
    """Name of the weight that sees the clip: that of the first convolution."""
    return next(f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv3d))


def head_keys(model: VideoNet) -> set[str]:
    """Everything but the published backbone: the head, and the block that FRMB replaces."""
    replaced = tuple(f"{block}." for block in model.replaced_blocks())
    return {
        key
        for key in model.state_dict()
        if key.split(".")[0] not in ("features", "model") or key.startswith(replaced)
    }


def _fit(
    model: VideoNet, kind: FileKind, renamed: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The entries that the network takes, in its order and shapes, and what was reshaped."""
    head, stem, flow = head_keys(model), stem_key(model), model.spec.modality == "flow"
    other_names = _other_names(model)
    # A published classifier is one of averaged features; a checkpoint may hold any head.
    takes_head = kind is CHECKPOINT or model.spec.head in AVERAGES
    found, reshaped = {}, {}
    for key, ours in model.state_dict().items():
        value = renamed.get(key, renamed.get(other_names.get(key, "")))
        if value is None or (key in head and not takes_head):
            continue
        shape, needed = tuple(value.shape), tuple(ours.shape)
        how = ""
        if key in head and len(needed) == 2 and shape == (*needed, 1, 1, 1):
            value, how = value.flatten(1), "a 1x1x1 convolution is a linear layer"
        elif key == stem and flow and _is_rgb_stem(shape, needed):
            value = value.mean(dim=1, keepdim=True).expand_as(ours)
            how = "the mean over RGB for each flow channel"
        if value.shape == ours.shape:
            found[key] = value
            if how:
                reshaped[key] = f"{key} {shape} -> {needed}: {how}"
    # A part of the head is taken whole or not at all.
    torn = {_part(key, model) for key in head if key not in found and not key.endswith(COUNTER)}
    usable = {k: v for k, v in found.items() if k not in head or _part(k, model) not in torn}
    return usable, [line for key, line in reshaped.items() if key in usable]


def _other_names(model: VideoNet) -> dict[str, str]:
    """Entries saved under two names, each with the other."""
    names: dict[int, str] = {}
    pairs = {}
    for key, value in model.state_dict(keep_vars=True).items():
        other = names.setdefault(id(value), key)
        if other != key:
            pairs |= {key: other, other: key}
    return pairs


def _is_rgb_stem(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    return len(theirs) == 5 and theirs[1] == 3 and theirs == (ours[0], 3, *ours[2:])


def _part(key: str, model: VideoNet) -> str:
    """What an entry of the head belongs to: bert, fc_action, ..., or the replaced block."""
    replaced = [block for block in model.replaced_blocks() if key.startswith(f"{block}.")]
    return replaced[0] if replaced else key.split(".")[0]


def _check_complete(
    model: VideoNet,
    kind: FileKind,
    renamed: Mapping[str, Tensor],
    usable: Mapping[str, Tensor],
) -> list[str]:
    """The network's entries that stay new: its head's, no other; raises ArchError otherwise."""
    own, head = model.state_dict(), head_keys(model)
    replaced = tuple(f"{block}." for block in model.replaced_blocks())
    missing = [key for key in own if key not in usable and not key.endswith(COUNTER)]
    misfits = [
        f"{key} is missing" if key not in renamed else _shapes(key, renamed[key], own[key])
        for key in missing
        if key not in head
    ]
    heads = HEADS if kind is CHECKPOINT else (CLASSIFIER,)
    misfits += [
        f"{key} {tuple(value.shape)} is unknown"
        for key, value in renamed.items()
        if key not in own and key.split(".")[0] not in heads and not key.startswith(replaced)
        if not key.endswith(COUNTER)
    ]
    if misfits:
        raise ArchError(f"{len(misfits)} entries: " + ", ".join(misfits[:4]))
    if kind is not CHECKPOINT:
        loaded = {_part(key, model) for key in head & usable.keys()}
        assert loaded <= {CLASSIFIER, "model.head"}, "the head is new but for the classifier"
    return missing


def _shapes(key: str, theirs: Tensor, ours: Tensor) -> str:
    return f"{key} is {tuple(theirs.shape)}, {tuple(ours.shape)} is needed"
