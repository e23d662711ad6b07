"""Names -> architectures: a row of the table, or what the parts of a name compose.

    rgb_I3D64f_FRMB_lstm = rgb, I3D, 64 frames, reduced by a modified last block, LSTM

In this order:
1. a row of the table, whose irregular names stay what they were published as;
2. the other modality's twin of a row, so that two streams of one name are one network;
3. the parts, each at most once, in any order after the backbone. The network's own name has
   them in the table's order, a BERT head before the reduction and any other after it.
   `bert10_2layers`, `bert10_1head` and `bert10_noclass` are the paper's variants of BERT.
Layer sizes and dropout that a name does not tell are those of the nearest row.
"""

import difflib
import re
from dataclasses import replace

from models.archs import ARCHS, ArchError, ArchSpec
from models.backbones import BACKBONES

BERT_VARIANTS = {
    "2layers": {"layers": 2},
    "1head": {"heads": 1},
    "noclass": {"class_token": False},
}
HEADS = {
    "": "average",
    "bert10": "bert10",
    "bert2": "bert2",
    "lstm": "lstm",
    "concatenation": "concatenation",
    "flat": "flat",
    "NLB_concatenation": "nlb_concatenation",
    **{f"{bert}_{variant}": bert for bert in ("bert10", "bert2") for variant in BERT_VARIANTS},
}
HEAD_WORDS = {word for head in HEADS if head for word in head.split("_")}
REDUCTIONS = ("FRAB", "FRMB")
FUSIONS = ("early", "late")


def get_arch(name: str) -> ArchSpec:
    """The architecture of that name.

    Raises ArchError for a name that is none, with the closest rows, and for one whose parts do
    not go together, with the reason.
    """
    row = _row(name)
    if row:
        return row
    parts = _split(name)
    if parts is None:
        close = difflib.get_close_matches(name, ARCHS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "known: " + ", ".join(ARCHS)
        raise ArchError(f"unknown architecture '{name}': {hint}")
    modality, backbone, frames, head, reduction, fusion = parts
    reason = _nonsense(*parts)
    if reason:
        raise ArchError(f"the architecture '{name}' makes no sense: {reason}")
    canonical = _join(*parts)
    row = _row(canonical)
    if row:
        return row
    return _compose(canonical, *parts)


def with_head(spec: ArchSpec, head: str) -> ArchSpec:
    """The single-pathway network with another head, a key of HEADS; its name may be a row's.

    Raises ArchError for a head or a backbone that there is not.
    """
    if BACKBONES[spec.backbone].two_pathways or head not in HEADS:
        what = spec.name if head in HEADS else f"'{head}'"
        raise ArchError(f"{what}: choose a network of one pathway and of the heads {list(HEADS)}")
    parts = (spec.modality, spec.backbone, spec.frames, head, spec.reduction or "", "")
    return _compose(_join(*parts), *parts)


def _compose(
    name: str, modality: str, backbone: str, frames: int, head: str, reduction: str, fusion: str
) -> ArchSpec:
    kind = HEADS[head]
    if BACKBONES[backbone].two_pathways:
        kind = f"two_pathway_bert_{fusion}" if fusion else "two_pathway_average"
    return ArchSpec(
        name=name,
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


def _split(name: str) -> tuple[str, str, int, str, str, str] | None:
    """Modality, backbone, frames, head, reduction, fusion; None if it follows no grammar.

    Raises ArchError for two words where one may be.
    """
    patterns = {
        backbone: r"(rgb|flow)_" + row.naming.format(r"([1-9]\d*)") + r"((?:_\w+)?)"
        for backbone, row in BACKBONES.items()
    }
    matches = {backbone: re.fullmatch(pattern, name) for backbone, pattern in patterns.items()}
    backbone, match = next(((b, m) for b, m in matches.items() if m), ("", None))
    if match is None:
        return None
    words = match[3].removeprefix("_")
    found = []
    for choices in (REDUCTIONS, FUSIONS):
        chosen = [word for word in words.split("_") if word in choices]
        if len(chosen) > 1:
            both = " and ".join(chosen)
            raise ArchError(f"the architecture '{name}' makes no sense: {both}, one is the most")
        found += chosen or [""]
        words = "_".join(word for word in words.split("_") if word not in choices)
    if words not in HEADS:
        if all(word in HEAD_WORDS for word in words.split("_")):
            heads = ", ".join(filter(None, HEADS))
            raise ArchError(
                f"the architecture '{name}' makes no sense: there is no head '{words}', one of "
                f"{heads} is the most"
            )
        return None
    return match[1], backbone, int(match[2]), words, *found


def _join(modality: str, backbone: str, frames: int, head: str, reduction: str, fusion: str) -> str:
    """The parts in the table's order."""
    middle = [head, reduction] if HEADS[head].startswith("bert") else [reduction, head]
    parts = [modality, BACKBONES[backbone].naming.format(frames), *middle, fusion]
    return "_".join(part for part in parts if part)


def _nonsense(
    modality: str, backbone: str, frames: int, head: str, reduction: str, fusion: str
) -> str | None:
    """Why the parts do not go together, if they do not."""
    row = BACKBONES[backbone]
    if modality not in row.inputs:
        return f"no input is known for {modality} clips of {backbone}"
    if row.only_frames not in (None, frames):
        return f"{backbone} takes {row.only_frames} frames, not {frames}"
    if row.two_pathways:
        return _two_pathway_nonsense(head, reduction, fusion)
    if fusion:
        return f"'{fusion}' fuses two pathways, {backbone} has one"
    (pathway,) = row.pathways
    if reduction and pathway.reduction_block is None:
        return f"{backbone} has no reduction block for {reduction}; leave that out"
    if frames % pathway.time_stride:
        return f"{backbone} makes a token of {pathway.time_stride} frames, {frames} is no multiple"
    return None


def _two_pathway_nonsense(head: str, reduction: str, fusion: str) -> str | None:
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
