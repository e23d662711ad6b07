"""Ablations of whole networks: the scripts themselves, for each head, split and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import UsageError
from engine.ablation.protocol import NO_CLASS, Ledger, Row
from engine.checkpoint import LAST
from engine.files import run_folder
from engine.testing.score_files import read_scores
from models import ArchSpec, get_arch

Main = Callable[[list[str]], int]


def check_name(spec: ArchSpec) -> None:
    """Raises UsageError where the name, which is all that a script gets, means another network."""
    if get_arch(spec.name) != spec:
        raise UsageError(
            f"{spec.name} is the published name of another network; give an --arch with the "
            "reduction that it has"
        )


@dataclass(frozen=True)
class NetworkSweep:
    """Trains and tests by the scripts' own `main`.

    Attributes:
        dataset: its name; `data_flags` say where it lies and how it is read.
        flags: the training script's others.
        orders: of the tokens in tests.
        output: where runs and test results go.
        train: optimizer -> training script; test: the test script.
    """

    ledger: Ledger
    dataset: str
    data_flags: Sequence[str]
    flags: Sequence[str]
    orders: Sequence[str]
    output: Path
    train: Mapping[str, Main]
    test: Main

    def final(self, row: Row, spec: ArchSpec, split: int, seed: int) -> dict:
        """Trains, or goes on, and tests the last epoch."""
        key = {"stage": "final", "row": row.key, "split": split, "seed": seed}
        key |= {"orders": list(self.orders)}
        return self.ledger.once(key, lambda: self._final(row, spec.name, split, seed))

    def _final(self, row: Row, arch: str, split: int, seed: int) -> dict:
        runs = self.output / "runs" / f"{row.key}_seed{seed}"
        network = ["--dataset", self.dataset, "--arch", arch, "--split", str(split)]
        network += self.data_flags
        where = ["--output", str(runs), "--seed", str(seed), "-c", "last"]
        code = self.train[row.optimizer]([*network, *self.flags, *where])
        if code:
            raise SystemExit(code)
        folder = run_folder(runs, self.dataset, arch, split)
        called, result = {}, None
        for order in self.orders:
            scores = runs / f"split{split}_{order}.npz"
            self.test(
                [
                    *(*network, "--checkpoint", str(folder / LAST), "--time-order", order),
                    *("--results", str(runs / "results"), "--scores", str(scores)),
                ]
            )
            result = read_scores(scores)
            scored = np.isfinite(result.scores).all(axis=1)
            called[order] = np.where(scored, result.scores.argmax(axis=1), NO_CLASS).tolist()
        return {"labels": result.labels.tolist(), "called": called}
