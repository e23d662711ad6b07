"""Pictures: learning curves, confusion matrices and accuracies of several runs, as PNG files."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from datasets.files import written_whole

matplotlib.rcParams["text.parse_math"] = False  # a class name may hold a $
STILL = 8  # steps of a flow image: a clip of less motion is almost white, not coloured noise
MAX_GAINS = 40  # bars: the classes that lose and gain most


def plot_confusion_matrix(matrix: np.ndarray, class_names: list[str], path: Path) -> None:
    """Rows are labels, columns predictions; coloured by share of the row, numbered when small."""
    classes = len(class_names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.5, min(20.0, 0.22 * classes + 3))
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="class")
    font = 9 if classes <= 20 else 6
    axes.set_xticks(range(classes), class_names, rotation=90, fontsize=font)
    axes.set_yticks(range(classes), class_names, fontsize=font)
    if classes <= 20:
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, value, ha="center", va="center", color=colour, fontsize=font)
    save_figure(figure, path)


def plot_curves(curves: Mapping[str, Mapping[int, tuple[float, float]]], path: Path) -> None:
    """Loss and top-1 by epoch: subset -> epoch -> (nats, percent)."""
    figure, (loss, top1) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for label, values in curves.items():
        for place, axes in enumerate((loss, top1)):
            epochs = sorted(values)
            axes.plot(epochs, [values[n][place] for n in epochs], marker=".", label=label)
    loss.set(xlabel="epoch", ylabel="cross-entropy, nats")
    top1.set(xlabel="epoch", ylabel="top-1, %", ylim=(0, 100))
    for axes in (loss, top1):
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def plot_summary(summary: dict, path: Path) -> None:
    """Top-1 of each run with its interval, and by class what fusion gains on the first stream.

    Args:
        summary: what scripts/summarize.py writes as JSON.
    """
    runs, fusion = summary["runs"], summary.get("fusion")
    rows = sorted(fusion["classes"], key=lambda row: row["gain"]) if fusion else []
    if len(rows) > MAX_GAINS:
        rows = rows[: MAX_GAINS // 2] + rows[-MAX_GAINS // 2 :]
    size = (14 if fusion else 9, max(2.5, 1.2 + 0.6 * len(runs), 1.2 + 0.24 * len(rows)))
    figure = plt.figure(figsize=size, layout="constrained")
    _draw_runs(figure.add_subplot(1, 2 if fusion else 1, 1), runs)
    if fusion:
        axes, gains = figure.add_subplot(1, 2, 2), [row["gain"] for row in rows]
        colours = ["#2b6cb0" if gain >= 0 else "#c53030" for gain in gains]
        axes.barh(range(len(rows)), gains, color=colours)
        axes.set_yticks(range(len(rows)), [row["class"] for row in rows], fontsize=8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel("gain of fusion on stream 1, points")
        axes.grid(alpha=0.3, axis="x")
    save_figure(figure, path)


def _draw_runs(axes: plt.Axes, runs: list[dict]) -> None:
    """A line for each run: its top-1, the interval, and its splits as ticks."""
    for place, run in enumerate(runs):
        top1 = run.get("over_splits", run["splits"][0])["top1"]
        ends = top1.get("exact") or top1["interval"] or [top1["value"]] * 2
        axes.plot(ends, [place, place], color="#2b6cb0", linewidth=2)
        axes.plot(top1["value"], place, "o", color="#2b6cb0")
        if len(run["splits"]) > 1:
            ticks = [split["top1"]["value"] for split in run["splits"]]
            axes.plot(ticks, [place] * len(ticks), "|", color="black", markersize=10)
    names = [run["name"].replace(" ", "\n", 1).replace("+", "+\n") for run in runs]
    axes.set_yticks(range(len(runs)), names, fontsize=8)
    axes.set(xlabel="top-1, %, with its 95 % interval", ylim=(len(runs) - 0.5, -0.5))
    axes.grid(alpha=0.3, axis="x")


def save_figure(figure: plt.Figure, path: Path, dpi: int = 110) -> None:
    """Writes a PNG, whole or not at all, and closes the figure."""
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
    plt.close(figure)


def flow_colours(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Flow images, uint8 (..., H, W, 2), 128 is no motion -> uint8 (..., H, W, 3), RGB.

    The hue is the direction (right is red, down yellow-green, left cyan, up violet), the
    saturation the distance over `largest` steps (the largest there is); what is still is white.
    """
    x, y = np.moveaxis(flow.astype(np.float32) - 127.5, -1, 0)
    distance, angle = cv2.cartToPolar(x.reshape(len(x), -1), y.reshape(len(y), -1))
    hue = angle / (2 * np.pi) * 180
    saturation = np.minimum(255 * distance / (largest or max(distance.max(), STILL)), 255)
    hsv = np.stack([hue % 180, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).reshape(*flow.shape[:-1], 3)
