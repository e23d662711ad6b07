"""Trainings and tests of an ablation, on tokens or of whole networks, each done once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from engine import UsageError
from engine.ablation.heads import OPTIMIZERS, Scores, Setting, score_head, train_head
from engine.ablation.protocol import Grid, HeadRow, Ledger, grouped_folds, groups_of
from engine.checkpoint import LAST
from engine.config import TestConfig, TrainingConfig
from engine.files import run_folder
from engine.metrics import topk_accuracy, topk_hits
from engine.testing.run import run_test
from engine.testing.score_files import write_scores
from engine.tokens.cache import TokenCache
from engine.training.epoch import NonFiniteLoss
from engine.training.run import run_training
from models import ArchSpec, get_arch


@dataclass(frozen=True)
class TokenSplit:
    """A split's cache; `folds`: of each training video, int (videos,)."""

    cache: TokenCache
    folds: np.ndarray

    @property
    def number(self) -> int:
        return self.cache.metadata["split"]

    @property
    def classes(self) -> list[str]:
        return self.cache.metadata["class_names"]


def token_split(cache: TokenCache, pattern: re.Pattern | None, folds: int) -> TokenSplit:
    """A cache with its folds; `pattern` says which training videos belong together."""
    names = [record.folder for record in cache.train.records]
    return TokenSplit(cache, grouped_folds(groups_of(names, pattern), folds))


@dataclass(frozen=True)
class TokenSweep:
    """Tunes, trains and tests heads on tokens; each training passes through the ledger."""

    ledger: Ledger
    grid: Grid
    batch_size: int
    orders: Sequence[str]
    device: torch.device

    def tune(self, row: HeadRow, spec: ArchSpec, split: TokenSplit) -> tuple[Setting, list[dict]]:
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
            tried.append((-sum(f["right"] for f in folds), sum(losses), setting))
        best = min(tried, key=lambda entry: entry[:2])
        videos = len(split.folds)
        return best[2], [
            asdict(setting) | {"top1": round(100 * -correct / videos, 2)}
            for correct, _, setting in tried
        ]

    def final(
        self, row: HeadRow, spec: ArchSpec, split: TokenSplit, setting: Setting, seed: int
    ) -> dict:
        """Trains on the whole list, and tests; where the loss diverges, all videos are wrong."""
        key = {"stage": "final", "row": row.key, "split": split.number, "seed": seed}
        key |= asdict(setting) | {"orders": list(self.orders)}
        return self.ledger.once(key, lambda: self._final(row, spec, split, setting, seed))

    def _fold(self, spec: ArchSpec, split: TokenSplit, setting: Setting, fold: int) -> dict:
        train, classes = split.cache.train, len(split.classes)
        inside = train.take(np.flatnonzero(split.folds != fold))
        held_out = train.take(np.flatnonzero(split.folds == fold))
        how = (setting, self.batch_size, fold, self.device)
        try:
            model, losses = train_head(spec, classes, inside, *how)
        except NonFiniteLoss:
            return {"right": 0, "loss": None, "train_loss": None}
        scores, _ = score_head(model, split.cache, held_out)
        loss = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(held_out.labels))
        correct = int(topk_hits(scores, held_out.labels, 1).sum())
        return {"right": correct, "loss": loss.item(), "train_loss": round(losses[-1], 5)}

    def _final(
        self, row: HeadRow, spec: ArchSpec, split: TokenSplit, setting: Setting, seed: int
    ) -> dict:
        cache, classes = split.cache, len(split.classes)
        how = (setting, self.batch_size, seed, self.device)
        try:
            model, losses = train_head(spec, classes, cache.train, *how)
        except NonFiniteLoss as error:
            unscored = np.full((len(cache.val.records), classes), np.nan, np.float32)
            files = {
                order: self._write(row, split, seed, order, (unscored, [])) for order in self.orders
            }
            return {"scores": files, "diverged": str(error)}
        fitted, _ = score_head(model, cache, cache.train)
        return {
            "train_top1": round(topk_accuracy(fitted, cache.train.labels, 1), 4),
            "train_losses": [round(loss, 5) for loss in losses],
            "scores": {
                order: self._write(
                    row, split, seed, order, score_head(model, cache, cache.val, order)
                )
                for order in self.orders
            },
        }

    def _write(self, row: HeadRow, split: TokenSplit, seed: int, order: str, scores: Scores) -> str:
        """Writes a test's scores; returns where, as seen from the ledger."""
        name = f"scores/{row.key}_split{split.number}_seed{seed}_{order}.npz"
        val = split.cache.val
        videos = [record.folder for record in val.records]
        path = self.ledger.path.parent / name
        write_scores(path, videos, val.labels, scores[0], split.classes, scores[1])
        return name


@dataclass(frozen=True)
class NetworkSweep:
    """Trains and tests whole networks, as the training and test scripts do.

    Attributes:
        orders: of the tokens in tests.
        configs: optimizer -> the training, whose architecture, seed and split are filled in.
    """

    ledger: Ledger
    orders: Sequence[str]
    configs: Mapping[str, TrainingConfig]

    def final(self, row: HeadRow, spec: ArchSpec, split: int, seed: int) -> dict:
        """Trains, or resumes, and tests the last epoch."""
        key = {"stage": "final", "row": row.key, "split": split, "seed": seed}
        key |= {"orders": list(self.orders)}
        return self.ledger.once(key, lambda: self._final(row, spec.name, split, seed))

    def _final(self, row: HeadRow, arch: str, split: int, seed: int) -> dict:
        output = self.ledger.path.parent
        runs = output / "runs" / f"{row.key}_seed{seed}"
        config = self.configs[row.optimizer]
        data = replace(config.data, split=split)
        config = replace(config, data=data, arch=arch, seed=seed, output=runs, resume="last")
        code = run_training(config, OPTIMIZERS[row.optimizer])
        if code:
            raise SystemExit(code)
        files = {}
        for order in self.orders:
            scores = runs / f"split{split}_{order}.npz"
            test = TestConfig(data, time_order=order, results=runs / "results", scores=scores)
            run_test(test, (arch, run_folder(runs, data.dataset, arch, split) / LAST))
            files[order] = scores.relative_to(output).as_posix()
        return {"scores": files}


def check_name(spec: ArchSpec) -> None:
    """Raises UsageError where the name, all that a training gets, means another network."""
    if get_arch(spec.name) != spec:
        raise UsageError(
            f"{spec.name} is the published name of another network; give an --arch with the "
            "reduction that it has"
        )
