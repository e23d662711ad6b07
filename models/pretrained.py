"""Published weights: how their names map to a network's, and what they may lack.

| backbone  | file                                                            | classifier       |
|-----------|-----------------------------------------------------------------|------------------|
| resneXt3D | `state_dict` with `conv1`, `bn1`, `layer1..4` (under `module.`) | `fc`             |
| I3D       | bare, `Conv3d_1a_7x7`, `Mixed_3b`, ...                          | `logits`         |
| r2plus1d  | bare, torchvision's `stem`, `layer1..4`                         | `fc`             |
| slowfast  | `state_dict` or `model_state`, PySlowFast's `s1` ... `s5`       | `head.projection`|

A checkpoint of this code or the reference implementation serves as well, whatever its classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from models.archs import ArchError
from models.late_temporal import VideoNet

_I3D_PARTS = (
    "Conv3d_1a_7x7 - Conv3d_2b_1x1 Conv3d_2c_3x3 - Mixed_3b Mixed_3c - "
    "Mixed_4b Mixed_4c Mixed_4d Mixed_4e Mixed_4f - Mixed_5b Mixed_5c"
).split()
_STAGES = [f"layer{i}" for i in range(1, 5)]

# File prefix -> network prefix; None for the classifier, which is left aside.
RENAMINGS: dict[str, dict[str, str | None]] = {
    "resneXt3D": {"conv1": "features.0", "bn1": "features.1", "fc": None}
    | {stage: f"features.{i}" for i, stage in enumerate(_STAGES, 4)},
    "I3D": {p: f"features.{i}" for i, p in enumerate(_I3D_PARTS) if p != "-"} | {"logits": None},
    "r2plus1d": {"stem": "features.0", "fc": None}
    | {stage: f"features.{i}" for i, stage in enumerate(_STAGES, 1)},
    "slowfast": {f"s{i}": f"model.s{i}" for i in range(1, 6)}
    | {f"s{i}_fuse": f"model.s{i}_fuse" for i in range(1, 5)}
    | {"head": None},
    "tiny3D": {},
}
# What a checkpoint may hold that is not its backbone: another network's head is left aside.
HEADS = ("bert", "bert_slow", "bert_fast", "lstm", "linear", "NLB", "fc_action")
HEADS += ("mapper", "mapper_slow", "mapper_fast")


@dataclass(frozen=True)
class PretrainedReport:
    """What `load_pretrained` did: keys that were loaded, and those left at their initial values."""

    matched: list[str]
    missing: list[str]

    def __str__(self) -> str:
        parts = sorted({key.split(".")[0] for key in self.missing})
        return f"{len(self.matched)} entries loaded, {len(self.missing)} new ({', '.join(parts)})"


def load_pretrained(model: VideoNet, state_dict: Mapping[str, Tensor]) -> PretrainedReport:
    """Fills the backbone, and whatever else fits, from a published file or a checkpoint.

    Only the head, the reduction block and the classifier may be missing in the file, and only
    the file's own head and classifier and the block that FRMB replaces may be left over.
    Raises ArchError with the first keys that do not fit.
    """
    spec = model.spec
    own = model.state_dict()
    renamed = _rename(state_dict, spec.backbone)
    optional = _optional_prefixes(model)
    usable, misfits = {}, []
    for key, value in renamed.items():
        if key in own and own[key].shape == value.shape:
            usable[key] = value
        elif not key.startswith(optional) and key.split(".")[0] not in HEADS:
            misfits.append(f"{key} {tuple(value.shape)}")
    missing = [key for key in own if key not in usable]
    misfits += [
        f"{key} is missing"
        for key in missing
        if not key.startswith(optional) and not key.endswith("num_batches_tracked")  # old files
    ]
    if misfits:
        raise ArchError(
            f"these weights do not fit {spec.name} ({len(misfits)} entries): "
            + ", ".join(misfits[:4])
        )
    model.load_state_dict(usable, strict=False)
    return PretrainedReport(list(usable), missing)


def _rename(state_dict: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    renaming = RENAMINGS[backbone]
    renamed = {}
    for key, value in state_dict.items():
        prefix, _, rest = key.partition(".")
        target = renaming.get(prefix, prefix)
        if target is not None:
            renamed[f"{target}.{rest}"] = value
    return renamed


def _optional_prefixes(model: VideoNet) -> tuple[str, ...]:
    """Everything but the backbone, and the backbone's last block where FRMB replaces it."""
    prefixes = [n for n, _ in model.named_children() if n not in ("features", "model")]
    return tuple(f"{prefix}." for prefix in [*prefixes, *model.replaced_blocks()])
