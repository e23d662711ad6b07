"""Ablations: temporal heads on the same features, tuned alike, over seeds and splits.

The protocol, for each head and split: every setting of a grid is tried by cross-validation inside
the training list, videos of one group never on both sides; the setting that calls most held-out
videos right, or among those has the lowest loss, trains on the whole list once for each seed; each
of these networks is tested once. The test list decides nothing.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.files import write_lines
from datasets.grouping import group_of
from engine import UsageError
from engine.ablation.heads import (
    Setting,
    TokenVideos,
    load_videos,
    loss_and_hits,
    score_head,
    train_head,
)
from engine.learner import NonFiniteLoss
from engine.tokens.cache import TokenCache
from models import NETWORKS, ArchSpec
from models.archs import ARCHS
from models.names import HEADS, with_head

AVERAGE = "average"  # the head whose word in names is empty
NO_CLASS = -1  # what a network calls a video that it cannot score
SGD_FACTOR = 100  # SGD's rates, as multiples of the grid's


@dataclass(frozen=True)
class Row:
    """A line of the table: `head` as in architecture names, the paper's top-1 on HMDB51 split 1."""

    title: str
    head: str
    optimizer: str = "adamw"
    paper: float | None = None

    @property
    def key(self) -> str:
        return (self.head or AVERAGE) + ("" if self.optimizer == "adamw" else "_sgd")


def preset(name: str, backbone: str) -> list[Row]:
    """The paper's tables: temporal pooling (table1) and variants of BERT (table2).

    BERT is the kind that is published on that backbone.
    """
    heads = [row.head for row in ARCHS.values() if row.backbone == backbone]
    bert = "bert2" if "bert2" in heads else "bert10"
    return {
        "table1": [
            Row("average, SGD", "", "sgd", 74.46),
            Row("average", "", paper=75.99),
            Row("concatenation", "flat"),
            Row("concatenation + FC", "concatenation", paper=76.84),
            Row("LSTM", "lstm", paper=74.18),
            Row("non-local + concatenation + FC", "NLB_concatenation", paper=76.36),
            Row("BERT", bert, paper=77.49),
        ],
        "table2": [
            Row("1 layer, 8 heads, no class token", f"{bert}_noclass", paper=76.07),
            Row("1 layer, 1 head, class token", f"{bert}_1head", paper=76.97),
            Row("1 layer, 8 heads, class token", bert, paper=77.49),
            Row("2 layers, 8 heads, class token", f"{bert}_2layers", paper=77.24),
        ],
    }[name]


def custom_row(text: str) -> Row:
    """A head's word in architecture names, or `average`, with _sgd for SGD.

    Raises UsageError if it is none.
    """
    word = text.removesuffix("_sgd")
    head = "" if word == AVERAGE else word
    if head not in HEADS or word == "":
        known = ", ".join(word or AVERAGE for word in HEADS)
        raise UsageError(f"no head '{word}'; choose from {known}, each also with _sgd")
    return Row(text.replace("_", " "), head, "sgd" if text != word else "adamw")


def rows_of(
    name: str | None, heads: Sequence[str], base: ArchSpec, maps: bool
) -> dict[Row, ArchSpec]:
    """The rows of a preset and of single heads, and their networks on the base's backbone.

    Heads that begin with feature maps are there if `maps` are.
    """
    rows = preset(name, base.backbone) if name else []
    asked = {row.key: row for row in (*map(custom_row, heads), *rows)}
    specs = {row: with_head(base, row.head) for row in asked.values()}
    return {row: s for row, s in specs.items() if maps or not NETWORKS[s.head].encodes}


@dataclass(frozen=True)
class Grid:
    """The settings that every head is tried with; SGD's rates are `SGD_FACTOR` times AdamW's."""

    lr: Sequence[float]
    weight_decay: Sequence[float]
    epochs: Sequence[int]

    def settings(self, optimizer: str) -> list[Setting]:
        factor = SGD_FACTOR if optimizer == "sgd" else 1
        return [
            Setting(optimizer, lr * factor, decay, epochs)
            for lr, decay, epochs in itertools.product(self.lr, self.weight_decay, self.epochs)
        ]


def groups_of(names: Sequence[str], pattern: re.Pattern | None) -> list[str]:
    """What group each video is of: by the pattern, else as names of known datasets tell, or alone.

    Raises UsageError for a name that the pattern does not match.
    """
    found = [group_of(name, pattern) for name in names]
    for name, group in zip(names, found, strict=True):
        if pattern and group is None:
            raise UsageError(f"--group {pattern.pattern} matches nothing in '{name}'")
    return [group[2] if group else name for name, group in zip(names, found, strict=True)]


def grouped_folds(groups: Sequence[str], folds: int, seed: int = 0) -> np.ndarray:
    """A fold 0..folds-1 for each video; groups stay whole, the largest are dealt out first.

    Raises UsageError if there are fewer groups than folds.
    """
    sizes = Counter(groups)
    if len(sizes) < folds:
        raise UsageError(f"{folds} folds of {len(sizes)} groups; take fewer --folds")
    order = np.random.default_rng(seed).permutation(sorted(sizes))
    fold_of, filled = {}, [0] * folds
    for group in sorted(order, key=lambda group: -sizes[group]):
        smallest = filled.index(min(filled))
        fold_of[group] = smallest
        filled[smallest] += sizes[group]
    return np.array([fold_of[group] for group in groups])


class Ledger:
    """Finished trainings, a JSON line each: what is there is not done again.

    Args:
        path: the file; a line that a kill cut off is dropped.
        protocol: what all trainings share. Raises UsageError if the file began with another.
    """

    def __init__(self, path: Path, protocol: Mapping):
        self.path, self.records = path, []
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if not whole:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"protocol": protocol}) + "\n", encoding="utf-8")
            return
        try:
            first, *self.records = map(json.loads, whole)
            earlier = first["protocol"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is no list of trainings ({error!r}); move it away") from None
        for key, value in json.loads(json.dumps(protocol)).items():
            if earlier.get(key) != value:
                raise UsageError(
                    f"{path} was begun with {key} {earlier.get(key)}, not {value}; "
                    "take another --output"
                )
        if len(whole) < len(lines):
            write_lines(path, [line.removesuffix("\n") for line in whole])

    def once(self, key: Mapping, train: Callable[[], Mapping]) -> dict:
        """The record with that key, or that of `train`, written down before it is returned."""
        key = json.loads(json.dumps(key))
        for record in self.records:
            if all(record.get(name) == value for name, value in key.items()):
                return record
        record = key | dict(train())
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records.append(record)
        return record


@dataclass(frozen=True)
class TokenSplit:
    """A split's videos, as tokens in memory."""

    number: int
    classes: list[str]
    train: TokenVideos
    val: TokenVideos
    folds: np.ndarray  # of each training video


def token_split(
    cache: TokenCache, maps: bool, pattern: re.Pattern | None, folds: int
) -> TokenSplit:
    """A cache in memory; `pattern` says which training videos belong together."""
    train, val = (load_videos(part, maps) for part in (cache.train, cache.val))
    of_video = grouped_folds(groups_of(train.names, pattern), folds)
    return TokenSplit(cache.about["split"], cache.about["class_names"], train, val, of_video)


@dataclass(frozen=True)
class TokenSweep:
    """Tunes, trains and tests heads on tokens; each training passes through the ledger."""

    ledger: Ledger
    grid: Grid
    batch_size: int
    orders: Sequence[str]
    device: torch.device

    def tune(self, row: Row, spec: ArchSpec, split: TokenSplit) -> tuple[Setting, list[dict]]:
        """The best setting by cross-validation, and what each was worth."""
        tried = []
        for setting in self.grid.settings(row.optimizer):
            key = {"stage": "tune", "row": row.key, "split": split.number} | asdict(setting)
            folds = [
                self.ledger.once(
                    key | {"fold": fold},
                    lambda fold=fold, setting=setting: self._fold(spec, split, setting, fold),
                )
                for fold in range(split.folds.max() + 1)
            ]
            losses = [float("inf") if f["loss"] is None else f["loss"] for f in folds]
            right = sum(f["right"] for f in folds)
            tried.append((-right, sum(losses), setting))
        best = min(tried, key=lambda entry: entry[:2])
        videos = len(split.train)
        return best[2], [
            asdict(setting) | {"top1": round(100 * -right / videos, 2)}
            for right, _, setting in tried
        ]

    def final(
        self, row: Row, spec: ArchSpec, split: TokenSplit, setting: Setting, seed: int
    ) -> dict:
        """Trains on the whole list, and tests; where the loss diverges, all videos are wrong."""
        key = {"stage": "final", "row": row.key, "split": split.number, "seed": seed}
        key |= asdict(setting) | {"orders": list(self.orders)}
        return self.ledger.once(key, lambda: self._final(spec, split, setting, seed))

    def _fold(self, spec: ArchSpec, split: TokenSplit, setting: Setting, fold: int) -> dict:
        inside = np.flatnonzero(split.folds != fold).tolist()
        held_out = np.flatnonzero(split.folds == fold).tolist()
        classes, train = len(split.classes), split.train
        settings = (setting, self.batch_size, fold, self.device)
        try:
            model, losses = train_head(spec, classes, train, inside, *settings)
        except NonFiniteLoss:
            return {"right": 0, "loss": None, "train_loss": None}
        scores = score_head(model, train, held_out, self.device)
        loss, right = loss_and_hits(scores, train.labels[held_out])
        return {"right": right, "loss": loss, "train_loss": round(losses[-1], 5)}

    def _final(self, spec: ArchSpec, split: TokenSplit, setting: Setting, seed: int) -> dict:
        every = range(len(split.train))
        settings = (setting, self.batch_size, seed, self.device)
        wrong = {order: [NO_CLASS] * len(split.val) for order in self.orders}
        result = {"labels": split.val.labels.tolist(), "called": wrong}
        try:
            model, losses = train_head(spec, len(split.classes), split.train, every, *settings)
        except NonFiniteLoss as error:
            return result | {"diverged": str(error)}
        train_scores = score_head(model, split.train, every, self.device)
        hits = loss_and_hits(train_scores, split.train.labels)[1]
        tests = range(len(split.val))
        called = {
            order: score_head(model, split.val, tests, self.device, order).argmax(dim=1).tolist()
            for order in self.orders
        }
        return result | {
            "train_top1": round(100 * hits / len(every), 4),
            "train_losses": [round(loss, 5) for loss in losses],
            "called": called,
        }
