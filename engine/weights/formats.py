"""The kinds of weight files that people keep, and what a file is.

| kind           | the file holds                               | names                         |
|----------------|----------------------------------------------|-------------------------------|
| ResNeXt3D-101  | `state_dict`, mostly under `module.`         | Hara's: `conv1`, `layer1`     |
| I3D            | bare                                         | `Conv3d_1a_7x7`, `Mixed_3b`   |
| R(2+1)D-34     | bare; 359, 487 or 400 classes                | torchvision's: `stem`         |
| SlowFast       | `model_state` or `state_dict`                | PySlowFast's: `s1` ... `s5`   |
| R(2+1)D-18 ... | bare                                         | torchvision's                 |
| checkpoint     | `state_dict`; this code's or the reference's | ours: `features`, `fc_action` |

What the names of a published kind become is in the row of its backbone.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.files import printable
from engine.files import strip_prefixes
from models.archs import ArchError
from models.backbones import BACKBONES
from models.backbones.base import CLASSIFIER, FileKind

# Backbone -> the kind of file that its weights are published in.
PUBLISHED = {name: row.files for name, row in BACKBONES.items() if row.files}
CHECKPOINT = FileKind("checkpoint", (), {}, CLASSIFIER)
COUNTER = "num_batches_tracked"  # files of before PyTorch 0.4.1 lack it; nothing here reads it
_WHOLE_NUMBERS = (COUNTER, "relative_position_index")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_OURS = ("features.", "model.")


class WeightFile(NamedTuple):
    """What a state dict turned out to be.

    Attributes:
        entries: it, without the prefixes of wrappers.
        stripped: those prefixes, or "".
        kind: whose names it has.
        backbone: whose weights it holds; None where its architecture says so.
    """

    entries: dict[str, Tensor]
    stripped: str
    kind: FileKind
    backbone: str | None

    @property
    def classes(self) -> int | None:
        """How many its classifier tells apart; None without one."""
        weight = self.entries.get(f"{self.kind.classifier}.weight")
        return len(weight) if weight is not None and weight.numel() and weight.ndim else None

    @property
    def dtypes(self) -> list[str]:
        return sorted({str(value.dtype).removeprefix("torch.") for value in self.entries.values()})


def identify(state_dict: Mapping[str, Tensor]) -> WeightFile:
    """Raises ArchError if it is of no known kind, or holds entries that are unusable."""
    entries, stripped = strip_prefixes(state_dict)
    published = (b for b, kind in PUBLISHED.items() if entries.keys() >= set(kind.markers))
    backbone = next(published, None)
    if backbone is None and not any(key.startswith(_OURS) for key in entries):
        known = ", ".join(kind.name for kind in (*PUBLISHED.values(), CHECKPOINT))
        first = printable(", ".join(key[:100] for key in sorted(entries)[:3])) or "nothing"
        raise ArchError(f"its entries ({first}, ...) are of no known kind of file: {known}")
    _check_values(entries)
    return WeightFile(entries, stripped, PUBLISHED.get(backbone, CHECKPOINT), backbone)


def _check_values(entries: Mapping[str, Tensor]) -> None:
    """Raises ArchError naming the first entries that are no finite real numbers."""
    wrong = []
    for key, value in entries.items():
        if key.endswith(_WHOLE_NUMBERS):
            types = (*_FLOATS, torch.int64, torch.int32)
        else:
            types = _FLOATS
        if value.dtype not in types or value.layout != torch.strided:
            wrong.append(f"{key} has the type {str(value.dtype).removeprefix('torch.')}")
        elif not torch.isfinite(value.float()).all():  # as it will be used
            wrong.append(f"{key} holds NaN or infinity")
    if wrong:
        raise ArchError(f"{len(wrong)} entries are unusable: " + ", ".join(wrong[:4]))
