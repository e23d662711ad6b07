"""Metrics: pure functions of scores (videos, classes) and labels (videos,), and a pass's sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each video's label is among its k highest scores, bool (videos,).

    A label whose score is equalled by others is counted behind them: a constant answer is wrong,
    and so is a video that could not be scored (NaN).
    """
    k = min(k, scores.shape[1])
    own = scores[np.arange(len(labels)), labels][:, None]
    rank = (scores >= own).sum(axis=1)  # 1 is the best, and 0 has no scores
    return (rank >= 1) & (rank <= k)


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of videos whose label is among the k highest scores, in percent; see topk_hits."""
    return 100 * float(np.mean(topk_hits(scores, labels, k)))


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Videos by label (row) and highest score (column), int64 (classes, classes).

    A video that could not be scored (NaN) stands nowhere.
    """
    classes = scores.shape[1]
    matrix = np.zeros((classes, classes), np.int64)
    scored = ~np.isnan(scores).any(axis=1)
    np.add.at(matrix, (labels[scored], scores[scored].argmax(axis=1)), 1)
    return matrix


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their videos called right, in percent."""
    videos = np.bincount(labels)
    right = np.bincount(labels, weights=topk_hits(scores, labels, 1))
    return 100 * float(np.mean(right[videos > 0] / videos[videos > 0]))


def fuse(streams: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """Late fusion: each video's scores divided by their L2 norm, times the stream's weight, added.

    Args:
        streams: scores (videos, classes) each, of the same videos in the same order.
        weights: a number for each stream; 1 for all if left out.

    A video that one stream could not score (NaN, or nothing but zeros) is NaN.
    """
    weights = [1.0] * len(streams) if weights is None else weights
    with np.errstate(invalid="ignore"):
        return sum(
            float(weight) * (scores / np.linalg.norm(scores, axis=1, keepdims=True))
            for scores, weight in zip(streams, weights, strict=True)
        )


@dataclass
class EpochStats:
    """Sums over the videos of one pass; the properties are what is reported.

    Attributes:
        videos, steps: videos seen and optimizer steps taken.
        clips: clips that went through the network.
        loss_sum: cross-entropy over the videos, nats.
        top1_hits, top3_hits: videos called right.
        loading, computing: seconds spent waiting for data, and on the rest.
    """

    videos: int = 0
    clips: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    top1_hits: int = 0
    top3_hits: int = 0
    loading: float = 0.0
    computing: float = 0.0

    @property
    def loss(self) -> float:
        return self.loss_sum / max(1, self.videos)

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.top1_hits / max(1, self.videos)

    @property
    def top3(self) -> float:
        """Percent."""
        return 100 * self.top3_hits / max(1, self.videos)

    @property
    def waiting(self) -> float:
        """Share of the time that was spent waiting for data, percent."""
        return 100 * self.loading / max(1e-9, self.loading + self.computing)

    @property
    def clips_per_second(self) -> float:
        return self.clips / max(1e-9, self.loading + self.computing)

    def add(self, logits: Tensor, labels: Tensor, loss: float, clips: int) -> None:
        """Counts a batch: logits (N, classes), labels (N,), its summed loss, its clips."""
        best = logits.topk(min(3, logits.shape[1]), dim=1).indices  # (N, 3)
        hits = best == labels[:, None]
        self.videos += len(labels)
        self.clips += clips
        self.loss_sum += loss
        self.top1_hits += int(hits[:, 0].sum())
        self.top3_hits += int(hits.sum())
