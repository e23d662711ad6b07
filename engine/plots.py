"""Pictures: learning curves and confusion matrices, as PNG files."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402


def plot_confusion_matrix(matrix: np.ndarray, class_names: list[str], path: Path) -> None:
    """Rows are labels, columns predictions; coloured by share of the row, numbered when small."""
    classes = len(class_names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.5, min(20.0, 0.22 * classes + 3))
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="called", ylabel="class")
    font = 9 if classes <= 20 else 6
    axes.set_xticks(range(classes), class_names, rotation=90, fontsize=font)
    axes.set_yticks(range(classes), class_names, fontsize=font)
    if classes <= 20:
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, value, ha="center", va="center", color=colour, fontsize=font)
    _save(figure, path)


def plot_curves(log: Path, path: Path) -> None:
    """Loss and top-1 by epoch, from a run's log; an epoch that was run twice shows the last run."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = {line["epoch"]: line for line in lines}
    figure, (loss, top1) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for part, label in (("train", "training"), ("val", "validation")):
        for axes, key in ((loss, "loss"), (top1, "top1")):
            values = [epochs[epoch][part][key] for epoch in sorted(epochs)]
            axes.plot(sorted(epochs), values, marker=".", label=label)
    loss.set(xlabel="epoch", ylabel="cross-entropy, nats")
    top1.set(xlabel="epoch", ylabel="top-1, %", ylim=(0, 100))
    for axes in (loss, top1):
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    temporary = path.with_name(path.stem + ".tmp.png")
    figure.savefig(temporary, dpi=110)
    plt.close(figure)
    temporary.replace(path)
