"""Names -> architectures: a row of the table, or what the parts of a name compose.

    rgb_I3D64f_FRMB_lstm = rgb, I3D, 64 frames, reduced by a modified last block, LSTM

In this order:
1. a row of the table, whose irregular names stay what they were published as;
2. the other modality's twin of a row, so that two streams of one name are one network;
3. the parts, each at most once, in any order after the backbone. The network's own name has
   them in the table's order, a BERT head before the reduction and any other after it.
   `bert10_2layers`, `bert10_1head` and `bert10_noclass` are the paper's variants of BERT,
   `bert10_zero` is one that starts as averaging.
Layer sizes and dropout that a name does not tell are those of the nearest row.
"""

import difflib
import re
from dataclasses import replace
from typing import NamedTuple

from models.archs import ARCHS, ArchError, ArchSpec
from models.backbones import BACKBONES

BERT_VARIANTS = {
    "2layers": {"layers": 2},
    "1head": {"heads": 1},
    "noclass": {"class_token": False},
    "zero": {"zero_start": True},
}
HEADS = {
    "": "average",
    "bert10": "bert10",
    "bert2": "bert2",
    "lstm": "lstm",
    "concatenation": "concatenation",
    "flat": "flat",
    "attentive": "attentive",
    "probe": "probe",
    "step": "step",
    "NLB_concatenation": "nlb_concatenation",
    **{f"{bert}_{variant}": bert for bert in ("bert10", "bert2") for variant in BERT_VARIANTS},
}
HEAD_WORDS = {word for head in HEADS if head for word in head.split("_")}
REDUCTIONS = ("FRAB", "FRMB")
FUSIONS = ("early", "late")


class Parts(NamedTuple):
    """What a name says; "" for a part that it does not have. `head` is a key of HEADS."""

    modality: str
    backbone: str
    frames: int
    head: str
    reduction: str
    fusion: str

    @property
    def name(self) -> str:
        """The parts in the table's order."""
        middle = [self.head, self.reduction]
        if not HEADS[self.head].startswith("bert"):
            middle.reverse()
        stem = [self.modality, BACKBONES[self.backbone].naming.format(self.frames)]
        return "_".join(part for part in (*stem, *middle, self.fusion) if part)


def get_arch(name: str) -> ArchSpec:
    """The architecture of that name.

    Raises ArchError for a name that is none, with the closest rows, and for one whose parts do
    not go together, with the reason.
    """
    row = _row(name)
    if row:
        return row
    try:
        parts = split_name(name)
        reason = parts and _nonsense(parts)
    except ArchError as error:
        reason = error
    if reason:
        raise ArchError(f"the architecture '{name}' makes no sense: {reason}")
    if parts is None:
        *close, last = difflib.get_close_matches(name, ARCHS, n=5, cutoff=0)
        raise ArchError(
            f"unknown architecture '{name}': did you mean {', '.join(close)} or {last}? "
            "python scripts/list_archs.py lists all"
        )
    return _row(parts.name) or _compose(parts)


def with_head(spec: ArchSpec, head: str, reduction: str | None = None) -> ArchSpec:
    """The single-pathway network with another head, a key of HEADS; its name may be a row's.

    `reduction`: one of REDUCTIONS; None: that of `spec`. It sees the tokens of as many streams.

    Raises ArchError for a head, a reduction or a backbone that there is not.
    """
    if BACKBONES[spec.backbone].two_pathways or head not in HEADS:
        what = spec.name if head in HEADS else f"'{head}'"
        raise ArchError(f"{what}: choose a network of one pathway and of the heads {list(HEADS)}")
    reduction = reduction or spec.reduction or ""
    parts = Parts(spec.modality, spec.backbone, spec.frames, head, reduction, "")
    if reason := _nonsense(parts):
        raise ArchError(f"{parts.name} makes no sense: {reason}")
    return replace(_compose(parts), streams=spec.streams)


def _compose(parts: Parts) -> ArchSpec:
    modality, backbone, frames, head, reduction, fusion = parts
    kind = HEADS[head]
    if BACKBONES[backbone].two_pathways:
        kind = f"two_pathway_bert_{fusion}" if fusion else "two_pathway_average"
    return ArchSpec(
        name=parts.name,
        modality=modality,
        backbone=backbone,
        frames=frames,
        head=kind,
        reduction=reduction or None,
        hidden=_nearest(modality, backbone, kind).hidden,
        # Published flow networks that average have a rate of their own, those of other heads none.
        dropout=_nearest(modality if kind == "average" else "rgb", backbone, "average").dropout,
        **BERT_VARIANTS.get(head.rpartition("_")[2], {}),
    )


def split_name(name: str) -> Parts | None:
    """The parts of a name; None if it follows no grammar.

    Raises ArchError for two words where one may be.
    """
    for row in BACKBONES.values():
        pattern = r"(rgb|flow)_" + row.naming.format(r"([1-9]\d*)") + r"((?:_\w+)?)"
        match = re.fullmatch(pattern, name)
        if match:
            break
    else:
        return None
    words = match[3].removeprefix("_").split("_")
    found = []
    for choices in (REDUCTIONS, FUSIONS):
        chosen = [word for word in words if word in choices]
        if len(chosen) > 1:
            raise ArchError(f"{' and '.join(chosen)}, one is the most")
        found += chosen or [""]
        words = [word for word in words if word not in choices]
    head = "_".join(words)
    if head in HEADS:
        return Parts(match[1], row.name, int(match[2]), head, *found)
    if HEAD_WORDS.issuperset(words):
        heads = ", ".join(filter(None, HEADS))
        raise ArchError(f"there is no head '{head}', one of {heads} is the most")
    return None


def _nonsense(parts: Parts) -> str | None:
    """Why the parts do not go together, if they do not."""
    modality, backbone, frames, head, reduction, fusion = parts
    row = BACKBONES[backbone]
    path = row.pathways[0]
    if modality not in row.inputs:
        return f"no input is known for {modality} clips of {backbone}"
    if row.only_frames not in (None, frames):
        return f"{backbone} takes {row.only_frames} frames, not {frames}"
    if fusion and not row.two_pathways:
        return f"'{fusion}' fuses two pathways, {backbone} has one"
    if reduction and path.reduction_block is None:
        return f"{backbone} has no reduction block for {reduction}; leave that out"
    if frames % path.time_stride:
        return f"{backbone} makes a token of {path.time_stride} frames, {frames} is no multiple"
    if not row.two_pathways:
        return None
    if head not in ("", "bert10"):
        return f"two pathways are averaged or go through bert10, there is no '{head}' for them"
    if head and not (reduction and fusion):
        return "bert10 on two pathways needs FRAB or FRMB, and early or late"
    if not head and (reduction or fusion):
        return f"'{reduction or fusion}' needs bert10 on two pathways"
    return None


def _row(name: str) -> ArchSpec | None:
    """The row of that name, or the other modality's for this one."""
    if name in ARCHS:
        return ARCHS[name]
    modality, _, rest = name.partition("_")
    twin = ARCHS.get({"rgb": "flow_", "flow": "rgb_"}.get(modality, "") + rest)
    if twin is None or modality not in BACKBONES[twin.backbone].inputs:
        return None
    return replace(twin, name=name, modality=modality)


def _nearest(modality: str, backbone: str, head: str) -> ArchSpec:
    """The row with most in common, the head first, then the backbone, then the modality."""
    alike = {
        name: (row.head == head, row.backbone == backbone, row.modality == modality)
        for name, row in ARCHS.items()
    }
    return ARCHS[max(alike, key=alike.get)]  # of several, the first
