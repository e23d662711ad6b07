"""What a training says: progress, epoch lines, JSON lines, TensorBoard, advice on slow loading."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from datasets import Split
from datasets.files import DataError, written_whole
from engine import distributed
from engine.config import Recipe, TrainingConfig
from engine.files import append_whole, write_json
from engine.metrics import EpochStats
from engine.training.records import LOG_FILE, read_log
from engine.training.state import TrainingState

BAD_LINES = "log.jsonl.bad"
SLOW_PERCENT = 20.0  # percent of the time spent waiting for data, from which advice is given
ENOUGH_SECONDS = 30.0  # of an epoch, after which its times mean something
LEAST_SECONDS = 10.0  # of a whole epoch that is worth advice
FEW_STEPS = 4  # optimizer steps of an epoch, below which little is learned in it
BAR_SECONDS = 1.0  # between two results on a bar: a GPU is waited for


class Progress:
    """A bar on a terminal; without one, a line every `print_freq` batches; None: nothing."""

    def __init__(self, title: str, print_freq: int | None):
        self.title, self.print_freq = title, print_freq

    def over(self, loader: Iterable, running: Callable[[], EpochStats]) -> Iterator:
        """The loader's batches, with the running result shown; it is asked for only then."""
        quiet = self.print_freq is None
        shown = not quiet and sys.stderr.isatty() and distributed.is_main()
        with tqdm(loader, self.title, dynamic_ncols=True, leave=False, disable=not shown) as bar:
            start = shown_at = time.perf_counter()
            for number, batch in enumerate(bar, 1):
                yield batch
                if not bar.disable:
                    if time.perf_counter() - shown_at >= BAR_SECONDS:
                        bar.set_postfix_str(_shown(running()), refresh=False)
                        shown_at = time.perf_counter()
                elif not quiet and number % self.print_freq == 0 and number < len(loader):
                    left = (time.perf_counter() - start) / number * (len(loader) - number)
                    line = f"{self.title} [{number}/{len(loader)}] {_shown(running())}"
                    print(f"{line}, {left:.0f} s left", flush=True)


def _shown(stats: EpochStats) -> str:
    return f"loss {stats.loss:.4f}, top-1 {stats.top1:.1f} %, data {stats.waiting:.0f} %"


class RunLog:
    """The records of one training: TensorBoard events and a JSON line an epoch.

    On a full disk training continues: lines wait for the next epoch, TensorBoard's events end.
    Only the first of several processes writes.

    Args:
        folder: the run's.
        first_epoch: epochs done before; the log drops what it holds of later ones.
        flags: what `args.json` is to hold.
    """

    def __init__(self, folder: Path, first_epoch: int, flags: Mapping[str, object] | None = None):
        self.folder, self.active = folder, distributed.is_main()
        self._unwritten: list[str] = []
        self.writer: SummaryWriter | None = None
        if not self.active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "args.json", dict(flags or {}))
        self._drop_from(first_epoch)
        with self._tolerant("TensorBoard's events end here"):
            self.writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def epoch(
        self,
        number: int,
        lr: float,
        train: EpochStats,
        val: EpochStats,
        ema: EpochStats | None = None,
    ) -> None:
        """Records an epoch; `number` counts from 0, printed lines and the log from 1.

        `ema` is the validation of the weights' moving average, where there is one.
        """
        if not self.active:
            return
        # TensorBoard
        scalars = {
            "top1_training": train.top1,
            "top3_training": train.top3,
            "classification_loss_training": train.loss,
            "top1_validation": val.top1,
            "top3_validation": val.top3,
            "classification_loss_validation": val.loss,
            "learning_rate": lr,
            "clips_per_second": train.clips_per_second,
        }
        if ema is not None:
            scalars |= {"top1_validation_ema": ema.top1, "top3_validation_ema": ema.top3}
        self._write_events(scalars, number)
        # JSON
        line = {
            "epoch": number + 1,
            "lr": lr,
            "steps": train.steps,
            "train": _summary(train),
            "val": _summary(val),
        }
        if ema is not None:
            line["ema"] = _summary(ema)
        self._unwritten.append(json.dumps(line) + "\n")
        with self._tolerant("the next epoch tries again"):
            append_whole(self.folder / LOG_FILE, self._unwritten)
            self._unwritten = []

    def _write_events(self, scalars: dict[str, float], number: int) -> None:
        if self.writer is None:
            return
        writer, self.writer = self.writer, None  # broken, unless this goes well
        with self._tolerant("TensorBoard's events end here"):
            for name, value in scalars.items():
                writer.add_scalar(f"data/{name}", value, number)
            writer.flush()
            self.writer = writer

    @contextlib.contextmanager
    def _tolerant(self, what_follows: str) -> Iterator[None]:
        try:
            yield
        except (OSError, DataError) as error:
            print(f"warning: cannot write in {self.folder} ({error}); {what_follows}", flush=True)

    def _drop_from(self, first_epoch: int) -> None:
        """Moves the lines of epochs that will be run again, and damaged ones, to other files."""
        path = self.folder / LOG_FILE
        if not os.path.lexists(path):
            return
        epochs, bad = read_log(path)
        kept = [line for record, line in epochs if record.epoch <= first_epoch]
        dropped = [line for record, line in epochs if record.epoch > first_epoch]
        if bad:  # cut off by a kill, or damaged
            print(f"warning: {len(bad)} lines of {path} say no epoch; they are kept in {BAD_LINES}")
        for name, lines in (("log.dropped.jsonl", dropped), (BAD_LINES, bad)):
            if lines:
                with open(self.folder / name, "ab") as file:
                    file.writelines(line + b"\n" for line in lines)
        with written_whole(path) as file:
            file.writelines(line + b"\n" for line in kept)

    def plot(self) -> None:
        """Draws the curves of all epochs that were logged."""
        from engine.plots import plot_curves  # matplotlib is slow to import

        if self.active and (self.folder / LOG_FILE).exists():
            with self._tolerant("there is no picture of the curves"):
                # An epoch that was run twice shows the last run.
                epochs = {record.epoch: record for record, _ in read_log(self.folder / LOG_FILE)[0]}
                curves = {
                    "training": {n: (epochs[n].train.loss, epochs[n].train.top1) for n in epochs},
                    "validation": {n: (epochs[n].val.loss, epochs[n].val.top1) for n in epochs},
                }
                plot_curves(curves, self.folder / "curves.png")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._tolerant("some of the log is lost"):
            if self._unwritten:
                append_whole(self.folder / LOG_FILE, self._unwritten)
            if self.writer is not None:
                self.writer.close()


def _summary(stats: EpochStats) -> dict:
    return {
        "loss": round(stats.loss, 6),
        "top1": round(stats.top1, 4),
        "top3": round(stats.top3, 4),
        "seconds_loading": round(stats.loading, 3),
        "seconds_computing": round(stats.computing, 3),
        "clips_per_second": round(stats.clips_per_second, 2),
    }


def epoch_line(
    number: int,
    epochs: int,
    lr: float,
    train: EpochStats,
    val: EpochStats,
    ema: EpochStats | None = None,
) -> str:
    """One line for people; `number` counts from 0."""
    average = "" if ema is None else f"average: loss {ema.loss:.4f} top-1 {ema.top1:.2f} %  "
    return (
        f"epoch {number + 1}/{epochs}  lr {lr:.2g}  "
        f"train: loss {train.loss:.4f} top-1 {train.top1:.2f} %  "
        f"val: loss {val.loss:.4f} top-1 {val.top1:.2f} % top-3 {val.top3:.2f} %  {average}"
        f"{train.clips_per_second:.1f} clips/s, waiting for data {train.waiting:.0f} %"
    )


class LoadingAdvice:
    """Says at most once that a training waits for its data, and what would help.

    Args:
        remedies: what would help; without any, nothing is said.
        workers: loader processes.
    """

    def __init__(self, remedies: Sequence[str], workers: int):
        self.remedies, self.workers = remedies, workers
        self.said = not remedies

    def check(self, stats: EpochStats, whole_epoch: bool = False) -> None:
        """To be called after a step, and after an epoch."""
        least = LEAST_SECONDS if whole_epoch else ENOUGH_SECONDS
        enough = stats.loading + stats.computing >= least
        if not self.said and enough and stats.waiting > SLOW_PERCENT:
            self.said = True
            print(self.message(stats), flush=True)

    def message(self, stats: EpochStats) -> str:
        """Loader processes work all the time; without any, loading and computing take turns."""
        seconds = stats.loading + (stats.computing if self.workers else 0)
        return (
            f"waiting for data {stats.waiting:.0f} % of the time: the loader gives "
            f"{stats.clips / max(1e-9, seconds):.1f} clips/s, the network could take "
            f"{stats.clips / max(1e-9, stats.computing):.1f}; what would help "
            f"(docs/LOADING.md): {'; '.join(self.remedies)}"
        )


def describe_start(state: TrainingState, config: TrainingConfig, split: Split) -> str:
    """One line for people: network, data, effective batch."""
    parameters = list(state.model.parameters())
    total = sum(p.numel() for p in parameters)
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = "" if learning == total else f" ({learning / 1e6:.3f} M learning)"
    recipe, world = config.recipe, distributed.world_size()
    batch = recipe.batch_size * recipe.iter_size * world
    return (
        f"{state.model.spec.name}: {total / 1e6:.3f} M parameters{frozen} on {state.device}, "
        f"{len(split.train)} training and {len(split.val)} validation videos "
        f"of {len(split.class_names)} classes, effective batch "
        f"(--batch-size x --iter-size x processes) {recipe.batch_size} x {recipe.iter_size} x "
        f"{world} = {batch}" + few_steps(len(split.train), recipe, world)
    )


def few_steps(videos: int, recipe: Recipe, world: int) -> str:
    """A warning, on a line of its own, if epochs have few optimizer steps; "" if they do not.

    Args:
        videos: of the training list.
        world: processes.
    """
    steps = math.ceil(videos / (recipe.batch_size * recipe.iter_size * world))
    batch = min(recipe.batch_size, max(2, videos // (2 * FEW_STEPS * world)))
    if steps >= FEW_STEPS or batch * world * FEW_STEPS > videos:
        return ""
    rate = " --lr 1e-3 (from pretrained weights --recipe few-videos)" if recipe.lr < 1e-4 else ""
    return (
        f"\nwarning: {videos} training videos are {steps} optimizer step{'s' * (steps > 1)} an "
        "epoch at this effective batch: little is learned. What fits: "
        f"--batch-size {batch} --iter-size 1{rate}; docs/TRAINING.md, Few videos"
    )


def describe_end(state: TrainingState, config: TrainingConfig, folder: Path) -> str:
    """What a finished training says."""
    stopped = f"stopped after --max-steps {config.max_steps}\n" if state.steps_left == 0 else ""
    best = state.best["best_prec1"]
    chosen = " (its epoch was chosen on the same list)" if config.recipe.epochs > 1 else ""
    return f"{stopped}best validation top-1 {best:.2f} %{chosen}; checkpoints and curves: {folder}"
