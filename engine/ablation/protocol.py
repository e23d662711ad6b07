"""The protocol of ablations: which heads, which settings, which folds, what is finished.

For each head and split, every setting of a grid is tried by cross-validation inside the training
list, videos of one group never on both sides. The setting with most correct held-out videos, or
among those the lowest loss, trains on the whole list once for each seed; each of these networks is
tested once. The test list decides nothing.
"""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold

from datasets.files import read_json, write_lines
from datasets.records import group_of
from engine import UsageError
from engine.ablation.heads import Setting
from engine.config import AblationConfig
from engine.files import append_whole
from models import NETWORKS, ArchSpec
from models.archs import ARCHS
from models.names import HEADS, REDUCTIONS, with_head

AVERAGE = "average"  # the head whose word in names is empty
SGD_FACTOR = 100  # SGD's rates, as multiples of the grid's


@dataclass(frozen=True)
class HeadRow:
    """A line of the table: `head` as in architecture names, the paper's top-1 on HMDB51 split 1.

    `reduction`: the block before the head; None: that of the network whose cache it is.
    """

    title: str
    head: str
    optimizer: str = "adamw"
    paper: float | None = None
    reduction: str | None = None

    @property
    def key(self) -> str:
        words = [self.head or AVERAGE, self.reduction, self.optimizer.replace("adamw", "")]
        return "_".join(word for word in words if word)


def preset(name: str, backbone: str) -> list[HeadRow]:
    """The paper's tables: temporal pooling (table1) and variants of BERT (table2).

    BERT is the kind that is published on that backbone.
    """
    published = {(row.backbone, row.head) for row in ARCHS.values()}
    bert = "bert2" if (backbone, "bert2") in published else "bert10"
    return {
        "table1": [
            HeadRow("average, SGD", "", "sgd", 74.46),
            HeadRow("average", "", paper=75.99),
            HeadRow("concatenation", "flat"),
            HeadRow("concatenation + FC", "concatenation", paper=76.84),
            HeadRow("LSTM", "lstm", paper=74.18),
            HeadRow("non-local + concatenation + FC", "NLB_concatenation", paper=76.36),
            HeadRow("BERT", bert, paper=77.49),
        ],
        "table2": [
            HeadRow("1 layer, 8 heads, no class token", f"{bert}_noclass", paper=76.07),
            HeadRow("1 layer, 1 head, class token", f"{bert}_1head", paper=76.97),
            HeadRow("1 layer, 8 heads, class token", bert, paper=77.49),
            HeadRow("2 layers, 8 heads, class token", f"{bert}_2layers", paper=77.24),
        ],
    }[name]


def custom_row(text: str) -> HeadRow:
    """A head's word in architecture names, or `average`, with _FRMB or _FRAB, with _sgd for SGD.

    Raises UsageError if it is none.
    """
    word = text.removesuffix("_sgd")
    optimizer = "sgd" if text != word else "adamw"
    reduction = next((own for own in REDUCTIONS if word.endswith(f"_{own}")), None)
    word = word.removesuffix(f"_{reduction}")
    head = "" if word == AVERAGE else word
    if head not in HEADS or word == "":
        known = ", ".join(word or AVERAGE for word in HEADS)
        after = " or ".join(f"_{own}" for own in REDUCTIONS)
        raise UsageError(f"no head '{word}'; choose from {known}, each also with {after}, and _sgd")
    return HeadRow(text.replace("_", " "), head, optimizer, reduction=reduction)


def rows_of(
    name: str | None, heads: Sequence[str], base: ArchSpec, maps: bool, reducible: bool = True
) -> dict[HeadRow, ArchSpec]:
    """The rows of a preset and of single heads, and their networks on the base's backbone.

    Heads that begin with feature maps are there if `maps` are. Raises UsageError for a reduction
    that is not `reducible`, as it came before the tokens of the cache.
    """
    rows = preset(name, base.backbone) if name else []
    asked = {row.key: row for row in (*map(custom_row, heads), *rows)}
    for row in asked.values():
        if row.reduction and not reducible:
            raise UsageError(
                f"{row.key}: {row.reduction} is a part of the backbone, which made this cache's "
                "tokens; take a cache in front of its last stage (cache_tokens.py --at STAGE)"
            )
    specs = {row: with_head(base, row.head, row.reduction) for row in asked.values()}
    return {row: s for row, s in specs.items() if maps or not NETWORKS[s.head].encodes}


def grid(config: AblationConfig, optimizer: str) -> list[Setting]:
    """The settings that every head is tried with; SGD's rates are `SGD_FACTOR` times AdamW's."""
    rates = [lr * (SGD_FACTOR if optimizer == "sgd" else 1) for lr in config.lr]
    values = itertools.product(rates, config.weight_decay, config.epochs)
    return [Setting(optimizer, *own) for own in values]


@dataclass(frozen=True)
class TriedSetting:
    """A setting's cross-validation: held-out videos that were correct, and their mean loss, both
    over all folds and seeds; infinite where a training diverged."""

    setting: Setting
    correct: int
    loss: float


def best_of(tried: Sequence[TriedSetting]) -> TriedSetting:
    """The setting with most correct held-out videos; of as many, the one of the lowest loss."""
    return max(tried, key=lambda one: (one.correct, -one.loss))


def widened(tried: Sequence[TriedSetting], budget: int) -> list[Setting]:
    """Settings beyond the grid's edge, where the best one lies on it and the loss still falls.

    Along the rate the next one is a third, or three times, the outermost; along the epochs it is
    twice the most. None are given beyond `budget` settings in all, the same for every head, so
    that none is tuned longer than another.
    """
    best = best_of(tried)
    found = []
    for name, factors in (("lr", (1 / 3, 3)), ("epochs", (None, 2))):
        own = getattr(best.setting, name)
        line = {
            getattr(one.setting, name): one.loss
            for one in tried
            if replace(one.setting, **{name: own}) == best.setting
        }
        values = sorted(line)
        for edge, inner, factor in (
            (values[0], values[1:2], factors[0]),
            (values[-1], values[-2:-1], factors[1]),
        ):
            if factor and inner and own == edge and line[edge] <= line[inner[0]]:
                wider = type(own)(float(f"{edge * factor:.1e}"))
                found.append(replace(best.setting, **{name: wider}))
    known = [one.setting for one in tried]
    room = max(0, budget - len(known))
    return [setting for setting in found if setting not in known][:room]


def tuned_setting(files: Sequence[Path], row: HeadRow, split: int, epochs: int) -> Setting:
    """What earlier ablations chose for a head on that split, at another number of epochs.

    A head with a reduction takes the setting of the head alone. Raises UsageError if none has it.
    """
    for file in files:
        chosen = read_json(file, dict)
        for key in (row.key, replace(row, reduction=None).key):
            if key in chosen and str(split) in chosen[key]:
                return Setting(**chosen[key][str(split)]["chosen"] | {"epochs": epochs})
    names = ", ".join(map(str, files))
    raise UsageError(f"{names}: nothing was tuned for {row.key} on split {split}")


def groups_of(names: Sequence[str], pattern: re.Pattern | None) -> list[str]:
    """What group each video is of: by the pattern, else as names of known datasets tell, or alone.

    Raises UsageError for a name that the pattern does not match.
    """
    groups = []
    for name in names:
        found = group_of(name, pattern)
        if pattern and found is None:
            raise UsageError(f"--group {pattern.pattern} matches nothing in '{name}'")
        groups.append(found[2] if found else name)
    return groups


def grouped_folds(groups: Sequence[str], folds: int) -> np.ndarray:
    """A fold 0..folds-1 for each video; groups stay whole, folds are of like size.

    Raises UsageError if there are fewer groups than folds.
    """
    if len(set(groups)) < folds:
        raise UsageError(f"{folds} folds of {len(set(groups))} groups; take fewer --folds")
    fold_of = np.empty(len(groups), int)
    for fold, (_, held_out) in enumerate(GroupKFold(folds).split(groups, groups=groups)):
        fold_of[held_out] = fold
    return fold_of


class Ledger:
    """Finished trainings, a JSON line each: what is there is not done again.

    A record may name files beside the ledger under `scores`; without them it is done again.

    Args:
        path: the file; a line that a kill cut off is dropped.
        protocol: what all trainings share. Raises UsageError if the file began with another.
    """

    def __init__(self, path: Path, protocol: Mapping):
        self.path, self.protocol, self.records = path, protocol, []
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        *lines, rest = text.split("\n")
        if not lines:
            write_lines(path, [json.dumps({"protocol": protocol})])
            return
        try:
            first, *self.records = map(json.loads, lines)
            earlier = first["protocol"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is no list of trainings ({error!r}); move it away") from None
        for key, value in json.loads(json.dumps(protocol)).items():
            if earlier.get(key) != value:
                raise UsageError(
                    f"{path} was begun with {key} {earlier.get(key)}, not {value}; "
                    "take another --output"
                )
        if rest:
            write_lines(path, lines)

    def once(self, key: Mapping, train: Callable[[], Mapping]) -> dict:
        """The record with that key, or that of `train`, written down before it is returned."""
        key = json.loads(json.dumps(key))
        for record in self.records:
            files = [self.path.parent / name for name in record.get("scores", {}).values()]
            if key.items() <= record.items() and all(file.exists() for file in files):
                return record
        record = key | dict(train())
        append_whole(self.path, [json.dumps(record) + "\n"])
        self.records.append(record)
        return record
