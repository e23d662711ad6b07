"""What a person sees and a program reads: progress, epoch lines, TensorBoard, tables, JSON."""

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from engine import distributed
from engine.files import append_whole, write_json
from engine.metrics import PassResult, confusion_matrix, mean_class_accuracy, topk_accuracy
from engine.testing.score_files import write_scores

LOG_FILE = "log.jsonl"
MAX_TABLE_CLASSES = 12


class Progress:
    """A bar on a terminal; without one, a line every `print_freq` batches."""

    def __init__(self, title: str, print_freq: int):
        self.title, self.print_freq = title, print_freq

    def over(self, loader: Iterable, result: PassResult) -> Iterator:
        """The loader's batches, with the running result shown."""
        shown = sys.stderr.isatty() and distributed.is_main()
        with tqdm(loader, self.title, dynamic_ncols=True, leave=False, disable=not shown) as bar:
            start = time.perf_counter()
            for number, batch in enumerate(bar, 1):
                yield batch
                if not bar.disable:
                    bar.set_postfix_str(_running(result), refresh=False)
                elif number % self.print_freq == 0 and number < len(loader):
                    left = (time.perf_counter() - start) / number * (len(loader) - number)
                    line = f"{self.title} [{number}/{len(loader)}] {_running(result)}"
                    print(f"{line}, {left:.0f} s left", flush=True)


def _running(result: PassResult) -> str:
    return f"loss {result.loss:.4f}, top-1 {result.top1:.1f} %, data {result.waiting:.0f} %"


class RunLog:
    """The records of one training: TensorBoard events and a JSON line an epoch.

    On a full disk training goes on: lines wait for the next epoch, TensorBoard's events end.
    """

    def __init__(self, folder: Path, first_epoch: int):
        self.folder = folder
        self._drop_from(first_epoch)
        self._unwritten: list[str] = []
        self.writer: SummaryWriter | None = None
        with self._tolerant("TensorBoard's events end here"):
            self.writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def epoch(
        self,
        number: int,
        lr: float,
        train: PassResult,
        val: PassResult,
        ema: PassResult | None = None,
        more: Mapping[str, float] | None = None,
    ) -> None:
        """Books an epoch; `number` counts from 0, printed lines and the log from 1.

        `ema` is the validation of the weights' moving average, where there is one, and `more`
        other numbers by name.
        """
        more = dict(more or {})
        scalars = {
            "top1_training": train.top1,
            "top3_training": train.top3,
            "classification_loss_training": train.loss,
            "top1_validation": val.top1,
            "top3_validation": val.top3,
            "classification_loss_validation": val.loss,
            "learning_rate": lr,
            "clips_per_second": train.clips_per_second,
            **more,
        }
        if ema is not None:
            scalars |= {"top1_validation_ema": ema.top1, "top3_validation_ema": ema.top3}
        self._write_events(scalars, number)
        line = {
            "epoch": number + 1,
            "lr": lr,
            "steps": train.steps,
            "train": _pass_summary(train),
            "val": _pass_summary(val),
            **more,
        }
        if ema is not None:
            line["ema"] = _pass_summary(ema)
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
        except OSError as error:
            print(f"warning: cannot write in {self.folder} ({error}); {what_follows}", flush=True)

    def _drop_from(self, first_epoch: int) -> None:
        """Moves the lines of epochs that will be run again to `log.dropped.jsonl`."""
        path = self.folder / LOG_FILE
        if not path.exists():
            return
        kept, dropped = [], []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                done = json.loads(line)["epoch"] <= first_epoch
            except (json.JSONDecodeError, KeyError, TypeError):  # cut off by a kill
                done = False
            (kept if done else dropped).append(line + "\n")
        if dropped:
            with open(self.folder / "log.dropped.jsonl", "a", encoding="utf-8") as file:
                file.writelines(dropped)
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            temporary.replace(path)

    def plot(self) -> None:
        """Draws the curves of all epochs that were logged."""
        from engine.plots import plot_curves  # matplotlib is slow to import

        if (self.folder / LOG_FILE).exists():
            with self._tolerant("there is no picture of the curves"):
                plot_curves(self.folder / LOG_FILE, self.folder / "curves.png")

    def close(self) -> None:
        with self._tolerant("some of the log is lost"):
            if self._unwritten:
                append_whole(self.folder / LOG_FILE, self._unwritten)
            if self.writer is not None:
                self.writer.close()


def _pass_summary(result: PassResult) -> dict:
    return {
        "loss": round(result.loss, 6),
        "top1": round(result.top1, 4),
        "top3": round(result.top3, 4),
        "seconds_loading": round(result.loading, 3),
        "seconds_computing": round(result.computing, 3),
        "clips_per_second": round(result.clips_per_second, 2),
    }


def epoch_line(
    number: int,
    epochs: int,
    lr: float,
    train: PassResult,
    val: PassResult,
    ema: PassResult | None = None,
) -> str:
    """One line for people; `number` counts from 0."""
    average = "" if ema is None else f"average: loss {ema.loss:.4f} top-1 {ema.top1:.2f} %  "
    return (
        f"epoch {number + 1}/{epochs}  lr {lr:.2g}  "
        f"train: loss {train.loss:.4f} top-1 {train.top1:.2f} %  "
        f"val: loss {val.loss:.4f} top-1 {val.top1:.2f} % top-3 {val.top3:.2f} %  {average}"
        f"{train.clips_per_second:.1f} clips/s, waiting for data {train.waiting:.0f} %"
    )


def summarize_scores(
    scores: np.ndarray, labels: np.ndarray, seconds: float
) -> dict[str, float | int]:
    """The metrics of a test: scores (videos, classes), labels (videos,), its whole duration."""
    return {
        "videos": len(labels),
        "top1": round(topk_accuracy(scores, labels, 1), 4),
        "top3": round(topk_accuracy(scores, labels, 3), 4),
        "mean_class_accuracy": round(mean_class_accuracy(scores, labels), 4),
        "seconds_per_video": round(seconds / max(1, len(labels)), 4),
    }


def print_summary(title: str, summary: dict[str, float | int]) -> None:
    print(
        f"{title}: top-1 {summary['top1']:.2f} %, top-3 {summary['top3']:.2f} %, "
        f"mean class accuracy {summary['mean_class_accuracy']:.2f} % "
        f"({summary['videos']} videos, {summary['seconds_per_video']:.2f} s each)"
    )


def confusion_table(matrix: np.ndarray, class_names: list[str]) -> str:
    """The matrix as text: rows are labels, columns predictions, in the same order."""
    width = max(len(name) for name in class_names)
    cell = max(3, len(str(matrix.max())) + 1)
    header = " " * (width + 4) + "".join(f"{i:>{cell}}" for i in range(len(class_names)))
    rows = [
        f"{i:>2}  {name:<{width}}" + "".join(f"{value:>{cell}}" for value in row)
        for i, (name, row) in enumerate(zip(class_names, matrix, strict=True))
    ]
    return "\n".join([header, *rows])


def write_results(
    stem: Path,
    scores_file: Path | None,
    videos: list[str],
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: list[str],
    summary: dict,
    clip_scores: Sequence[np.ndarray] = (),
) -> None:
    """Writes `<stem>.json`, `<stem>.png` (confusion matrix) and the scores' npz.

    Args:
        clip_scores: of each video (clips, classes), if clips have scores of their own.
    """
    from engine.plots import plot_confusion_matrix  # matplotlib is slow to import

    stem.parent.mkdir(parents=True, exist_ok=True)
    scores_file = scores_file or stem.with_name(stem.name + ".npz")
    write_scores(scores_file, videos, labels, scores, class_names, clip_scores)
    matrix = confusion_matrix(scores, labels)
    if len(class_names) <= MAX_TABLE_CLASSES:
        print("rows: the video's class, columns: what it was called")
        print(confusion_table(matrix, class_names))
    picture = stem.with_name(stem.name + ".png")
    plot_confusion_matrix(matrix, class_names, picture)
    summary_file = stem.with_name(stem.name + ".json")
    write_json(summary_file, summary | {"scores": str(scores_file), "confusion": str(picture)})
    print(f"scores: {scores_file}\nsummary: {summary_file}\nconfusion matrix: {picture}")
