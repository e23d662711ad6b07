"""Trainings and tests of an ablation, on tokens or of whole networks, each done once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from engine.ablation.heads import OPTIMIZERS, Setting, score_head, train_head
from engine.ablation.protocol import (
    HeadRow,
    Ledger,
    TriedSetting,
    best_of,
    grid,
    grouped_folds,
    groups_of,
    widened,
)
from engine.checkpoint import LAST
from engine.config import AblationConfig, TestConfig, TrainingConfig
from engine.files import run_folder
from engine.metrics import topk_accuracy, topk_hits
from engine.testing.run import run_test
from engine.testing.score_files import write_scores
from engine.tokens.cache import TokenCache
from engine.training.run import run_training
from engine.training.sums import NonFiniteLoss
from models import ArchSpec

FOLD_SEEDS = 1000  # between the seeds of one fold's trainings


class TokenSweep:
    """Tunes, trains and tests heads on a split's tokens; each training passes through the ledger.

    Attributes:
        split: its number.
        folds: of each training video, int (videos,).
    """

    def __init__(
        self, ledger: Ledger, config: AblationConfig, cache: TokenCache, device: torch.device
    ):
        self.ledger, self.config, self.cache = ledger, config, cache
        self.train = partial(train_head, cache=cache, batch_size=config.batch_size, device=device)
        self.split, self.classes = cache.metadata["split"], cache.metadata["class_names"]
        names = [record.folder for record in cache.train.records]
        self.folds = grouped_folds(groups_of(names, config.group), config.folds)

    def tune(
        self, row: HeadRow, spec: ArchSpec, after_training: Callable[[], object] = bool
    ) -> tuple[Setting, list[dict]]:
        """The best setting by cross-validation, and what each was worth."""
        tried: list[TriedSetting] = []
        ahead = grid(self.config, row.optimizer)
        while ahead:
            for setting in ahead:
                tried.append(self._try(row, spec, setting, after_training))
            ahead = widened(tried, self.config.budget)
        videos = len(self.folds) * self.config.fold_seeds
        return best_of(tried).setting, [
            asdict(one.setting)
            | {"top1": round(100 * one.correct / videos, 2)}
            | ({"loss": round(one.loss, 4)} if np.isfinite(one.loss) else {})
            for one in tried
        ]

    def _try(
        self,
        row: HeadRow,
        spec: ArchSpec,
        setting: Setting,
        after_training: Callable[[], object],
    ) -> TriedSetting:
        """A setting's trainings: each fold held out, with each seed."""
        key = {"stage": "tune", "row": row.key, "split": self.split} | asdict(setting)
        records = []
        for seed, fold in product(range(self.config.fold_seeds), range(self.config.folds)):
            own = key | {"fold": fold} | ({"seed": seed} if seed else {})
            held_out = partial(self._fold, spec, setting, fold, FOLD_SEEDS * seed + fold)
            records.append(self.ledger.once(own, held_out))
            after_training()
        losses = [np.inf if r["loss"] is None else r["loss"] for r in records]
        return TriedSetting(setting, sum(r["right"] for r in records), float(np.mean(losses)))

    def final(self, row: HeadRow, spec: ArchSpec, setting: Setting, seed: int) -> dict:
        """Trains on the whole list, and tests; where the loss diverges, all videos are wrong."""
        key = _final_key(row, self.split, seed, self.config.time_order) | asdict(setting)
        return self.ledger.once(key, partial(self._final, row, spec, setting, seed))

    def _fold(self, spec: ArchSpec, setting: Setting, fold: int, seed: int) -> dict:
        inside = self.cache.train.take(np.flatnonzero(self.folds != fold))
        held_out = self.cache.train.take(np.flatnonzero(self.folds == fold))
        try:
            model, losses = self.train(spec, len(self.classes), inside, setting, seed=seed)
        except NonFiniteLoss:
            return {"right": 0, "loss": None, "train_loss": None}
        scores, _ = score_head(model, self.cache, held_out)
        loss = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(held_out.labels))
        correct = int(topk_hits(scores, held_out.labels, 1).sum())
        return {"right": correct, "loss": loss.item(), "train_loss": round(losses[-1], 5)}

    def _final(self, row: HeadRow, spec: ArchSpec, setting: Setting, seed: int) -> dict:
        cache, train, val = self.cache, self.cache.train, self.cache.val
        # train
        try:
            model, losses = self.train(spec, len(self.classes), train, setting, seed=seed)
        except NonFiniteLoss as error:
            model, record = None, {"diverged": str(error)}
        else:
            fitted, _ = score_head(model, cache, train)
            record = {
                "train_top1": round(topk_accuracy(fitted, train.labels, 1), 4),
                "train_losses": [round(loss, 5) for loss in losses],
            }
        # test
        videos, files = [video.folder for video in val.records], {}
        for order in self.config.time_order:
            scores, views = np.full((len(videos), len(self.classes)), np.nan, np.float32), []
            if model is not None:
                scores, views = score_head(model, cache, val, order)
            files[order] = f"scores/{row.key}_split{self.split}_seed{seed}_{order}.npz"
            path = self.ledger.path.parent / files[order]
            write_scores(path, videos, val.labels, scores, self.classes, views)
        return record | {"scores": files}


def _final_key(row: HeadRow, split: int, seed: int, orders: Sequence[str]) -> dict:
    key = {"stage": "final", "row": row.key, "split": split, "seed": seed}
    return key | {"orders": list(orders)}


def network_final(
    ledger: Ledger, row: HeadRow, training: TrainingConfig, orders: Sequence[str]
) -> dict:
    """Trains a whole network, or resumes, and tests its last epoch, as the scripts do."""
    data, seed, output = training.data, training.seed, ledger.path.parent
    runs = output / "runs" / f"{row.key}_seed{seed}"

    def train() -> dict:
        config = replace(training, output=runs, resume="last")
        code = run_training(config, OPTIMIZERS[row.optimizer])
        if code:
            raise SystemExit(code)
        checkpoint = run_folder(runs, data.dataset, training.arch, data.split) / LAST
        files = {}
        for order in orders:
            scores = runs / f"split{data.split}_{order}.npz"
            test = TestConfig(data, time_order=order, results=runs / "results", scores=scores)
            run_test(test, (training.arch, checkpoint))
            files[order] = scores.relative_to(output).as_posix()
        return {"scores": files}

    return ledger.once(_final_key(row, data.split, seed, orders), train)
