"""Metrics: pure functions of scores (videos, classes) and labels (videos,), and a pass's sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of videos whose label is among the k highest scores, in percent.

    A label whose score is equalled by others is counted behind them: a constant answer is wrong,
    and so is a video that could not be scored (NaN).
    """
    k = min(k, scores.shape[1])
    own = scores[np.arange(len(labels)), labels][:, None]
    rank = (scores >= own).sum(axis=1)  # 1 is the best, and 0 has no scores
    return 100 * float(np.mean((rank >= 1) & (rank <= k)))


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
    matrix = confusion_matrix(scores, labels)
    videos = np.bincount(labels, minlength=scores.shape[1])
    present = videos > 0
    return 100 * float(np.mean(matrix.diagonal()[present] / videos[present]))


def fuse(streams: Sequence[np.ndarray]) -> np.ndarray:
    """Two-stream fusion: each video's scores divided by their L2 norm, then added."""
    return sum(scores / np.linalg.norm(scores, axis=1, keepdims=True) for scores in streams)


@dataclass
class PassResult:
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
