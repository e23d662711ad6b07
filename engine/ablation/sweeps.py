"""Trainings and tests of an ablation, on tokens or of whole networks, each done once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from engine import UsageError
from engine.ablation.heads import FLOAT32, OPTIMIZERS, Setting, score_head, train_head
from engine.ablation.protocol import (
    HeadRow,
    Ledger,
    TriedSetting,
    best_of,
    grid,
    grouped_folds,
    groups_of,
    tuned_setting,
    widened,
)
from engine.checkpoint import LAST
from engine.config import AblationConfig, TestConfig, TrainingConfig
from engine.files import run_folder
from engine.metrics import topk_accuracy, topk_hits
from engine.speed import Speed
from engine.testing.run import run_test
from engine.testing.score_files import write_scores
from engine.tokens.cache import CachedSubset, TokenCache
from engine.training.run import run_training
from engine.training.sums import NonFiniteLoss
from models import ArchSpec

FOLD_SEEDS = 1000  # between the seeds of one fold's trainings


class TokenSweep:
    """Tunes, trains and tests heads on a split's tokens; each training passes through the ledger.

    Attributes:
        split: its number.
        folds, groups: of each training video, int and str (videos,).
        test: the videos that are tested, the training videos with --leave-one-out.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: AblationConfig,
        cache: TokenCache,
        device: torch.device,
        speed: Speed = FLOAT32,
        test: CachedSubset | None = None,
    ):
        self.ledger, self.config, self.cache = ledger, config, cache
        self.train = partial(
            train_head,
            batch_size=config.batch_size,
            device=device,
            cache=cache,
            speed=speed,
            stage_lr=config.stage_lr,
        )
        self.test = test or cache.val
        self.split, self.classes = cache.metadata["split"], cache.metadata["class_names"]
        names = [record.folder for record in cache.train.records]
        self.groups = np.array(groups_of(names, config.group))
        self.folds = grouped_folds(self.groups, config.folds)

    @property
    def least_trainings(self) -> int:
        """How many the tuning of a head has, before its grid is widened."""
        settings = len(grid(self.config, "adamw"))
        if self.config.tuned or settings == 1 and self.config.seeds:
            return 0
        return settings * self.config.folds * self.config.fold_seeds

    def tune(
        self, row: HeadRow, spec: ArchSpec, after_training: Callable[[], object] = bool
    ) -> tuple[Setting, list[dict]]:
        """The best setting by cross-validation, and what each was worth.

        One that is the only one is not tried, unless there is nothing else to do, nor are those of
        earlier ablations.
        """
        if self.config.tuned:
            epochs = self.config.epochs[0]
            return tuned_setting(self.config.tuned, row, self.split, epochs), []
        tried: list[TriedSetting] = []
        ahead = grid(self.config, row.optimizer)
        if not self.least_trainings:
            return ahead[0], []
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
        key["stage"] += kind_of(self.config)
        return self.ledger.once(key, partial(self._final, row, spec, setting, seed))

    def _parts(self, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each network that is trained for a test: numbers of its training and test videos."""
        labels, groups = self.cache.train.labels, self.groups
        everything = np.arange(len(self.test.records))
        if self.config.leave_one_out:
            return [
                (np.flatnonzero(groups != g), np.flatnonzero(groups == g))
                for g in np.unique(groups)
            ]
        if self.config.shots is None:
            return [(np.arange(len(labels)), everything)]
        rng = np.random.default_rng(seed)
        own = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        return [(np.sort(np.concatenate([v[: self.config.shots] for v in own])), everything)]

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
        orders, test = self.config.time_order, self.test
        shape = len(test.records), len(self.classes)
        scores = {order: np.full(shape, np.nan, np.float32) for order in orders}
        views = {order: [np.empty((0, shape[1]), np.float32)] * shape[0] for order in orders}
        trained, records = [], []
        for learned, tested in self._parts(seed):
            # train
            train, asked = self.cache.train.take(learned), test.take(tested)
            try:
                model, losses = self.train(spec, len(self.classes), train, setting, seed=seed)
            except NonFiniteLoss as error:
                records.append({"diverged": str(error)})
                continue
            fitted, _ = score_head(model, self.cache, train)
            trained.append(topk_accuracy(fitted, train.labels, 1))
            records.append({"train_losses": [round(loss, 5) for loss in losses]})
            # test
            for order in orders:
                scores[order][tested], found = score_head(model, self.cache, asked, order)
                for video, own in zip(tested, found, strict=True):
                    views[order][video] = own
        # files
        videos, files = [video.folder for video in test.records], {}
        stem = f"scores/{row.key}{kind_of(self.config)}_split{self.split}_seed{seed}"
        for order in orders:
            files[order] = f"{stem}_{order}.npz"
            path = self.ledger.path.parent / files[order]
            write_scores(path, videos, test.labels, scores[order], self.classes, views[order])
        record = records[0] if len(records) == 1 else {"parts": records}
        record |= {"train_top1": round(float(np.mean(trained)), 4)} if trained else {}
        return record | {"scores": files}


def kind_of(config: AblationConfig) -> str:
    """What the names of score files and reports say of tests that are not of whole lists."""
    if config.leave_one_out:
        return "_leave_one_out"
    return f"_{config.shots}_shots" if config.shots else ""


def views_elsewhere(cache: TokenCache, others: Sequence[TokenCache]) -> tuple[int, CachedSubset]:
    """A cache's training videos as another one tests them, in their order, and that one's split.

    Raises UsageError unless one tests them all, and learns from none of them.
    """
    names = [record.folder for record in cache.train.records]
    for other in others:
        place = {record.folder: number for number, record in enumerate(other.val.records)}
        learned = {record.folder for record in other.train.records}
        if place.keys() >= set(names) and learned.isdisjoint(names):
            return other.metadata["split"], other.val.take([place[name] for name in names])
    raise UsageError(
        f"--leave-one-out: no other cache tests the training videos of {cache.folder}; give two "
        "caches, the training videos of each being the test videos of the other"
    )


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
