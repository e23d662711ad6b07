"""What a test reports: a line, a confusion matrix as table and picture, JSON, the score file."""

import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision

from datasets.files import printable
from engine import __version__
from engine.files import ROOT, write_json
from engine.metrics import confusion_matrix, mean_class_accuracy, topk_accuracy
from engine.testing.score_files import write_scores

MAX_TABLE_CLASSES = 12


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
    """One line; it says so where a network's epoch was chosen by the videos that test it."""
    chosen = "; its epoch was chosen on these videos" * summary.get("chosen_on_these_videos", False)
    print(
        f"{title}: top-1 {summary['top1']:.2f} %, top-3 {summary['top3']:.2f} %, "
        f"mean class accuracy {summary['mean_class_accuracy']:.2f} % "
        f"({summary['videos']} videos, {summary['seconds_per_video']:.2f} s each){chosen}"
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


def made_by() -> dict[str, object]:
    """Who wrote a result, for its JSON: the command, the versions, the time."""
    script = Path(sys.argv[0]).resolve()
    inside = script.is_relative_to(ROOT)
    words = ["python", str(script.relative_to(ROOT) if inside else script.name), *sys.argv[1:]]
    return {
        "command": printable(shlex.join(words)),
        "versions": {
            "late temporal modelling": __version__,
            "Python": platform.python_version(),
            "PyTorch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "NumPy": np.__version__,
        },
        "finished": time.strftime("%Y-%m-%d %H:%M"),
    }


def write_results(
    stem: Path,
    scores_file: Path,
    videos: list[str],
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: list[str],
    summary: dict,
    clip_scores: Sequence[np.ndarray] = (),
    streams: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes `<stem>.json`, `<stem>.png` (confusion matrix) and the scores' npz.

    Args:
        clip_scores: of each video (clips, classes), if clips have scores of their own.
        streams: what a fusion was made of, architecture -> (videos, classes).
    """
    from engine.plots import plot_confusion_matrix  # matplotlib is slow to import

    write_scores(scores_file, videos, labels, scores, class_names, clip_scores, streams)
    matrix = confusion_matrix(scores, labels)
    if len(class_names) <= MAX_TABLE_CLASSES:
        print("rows: the video's class, columns: the predicted class")
        print(confusion_table(matrix, class_names))
    picture = stem.with_name(stem.name + ".png")
    plot_confusion_matrix(matrix, class_names, picture)
    summary_file = stem.with_name(stem.name + ".json")
    files = {"scores": str(scores_file), "confusion": str(picture)}
    write_json(summary_file, summary | made_by() | files)
    print(f"scores: {scores_file}\nsummary: {summary_file}\nconfusion matrix: {picture}")
