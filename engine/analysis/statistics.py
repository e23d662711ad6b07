"""Statistics of tests: intervals and significance of accuracies. Pure functions.

Accuracies are in percent. A video that could not be scored is wrong in all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import binomtest, bootstrap

from engine.metrics import topk_hits

LEVEL, RESAMPLES, SEED = 0.95, 9999, 0


@dataclass(frozen=True)
class Outcome:
    """Which videos of one test are correct.

    Attributes:
        labels: int64 (N,).
        top1, top3: bool (N,), the label is the first, or among the first three.
        clips, correct_clips: int64 (N,), the clips of each video, and the correct ones;
            None if they are not known.
    """

    labels: np.ndarray
    top1: np.ndarray
    top3: np.ndarray
    clips: np.ndarray | None = None
    correct_clips: np.ndarray | None = None


def outcome(
    scores: np.ndarray,
    labels: np.ndarray,
    clip_scores: np.ndarray | None = None,
    clip_videos: np.ndarray | None = None,
) -> Outcome:
    """Of scores (N, classes), labels (N,), and each clip's scores (M, classes) and video (M,)."""
    top1, top3 = (topk_hits(scores, labels, k) for k in (1, 3))
    if clip_scores is None:
        return Outcome(labels, top1, top3)
    correct = topk_hits(clip_scores, labels[clip_videos], 1)
    clips = np.bincount(clip_videos, minlength=len(labels))
    correct_clips = np.bincount(clip_videos[correct], minlength=len(labels))
    return Outcome(labels, top1, top3, clips, correct_clips)


def accuracies(result: Outcome, places: np.ndarray) -> np.ndarray:
    """Top-1, top-3, mean class accuracy and, if known, clip-level top-1 of some of the videos.

    Args:
        places: int (..., n), which videos; a video may stand there more than once.

    Returns:
        Percent, (3 or 4, ...). The mean class accuracy is over the classes that occur.
    """
    drawn = np.apply_along_axis(np.bincount, -1, places, minlength=len(result.labels))
    drawn = drawn.astype(float)  # (..., N), how often each video

    def share(hits: np.ndarray, of: np.ndarray) -> np.ndarray:
        return (drawn @ hits) / (drawn @ of)

    videos, of_class = np.ones(len(result.labels)), np.eye(result.labels.max() + 1)[result.labels]
    with np.errstate(invalid="ignore"):  # a class that does not occur
        by_class = share(of_class * result.top1[:, None], of_class)  # (..., classes)
    values = [share(result.top1, videos), share(result.top3, videos), np.nanmean(by_class, -1)]
    if result.clips is not None:
        values.append(share(result.correct_clips, result.clips))
    return 100 * np.stack(values)


def mean_accuracies(splits: Sequence[Outcome], *places: np.ndarray) -> np.ndarray:
    """The accuracies that all splits have, averaged, (3 or 4, ...), of some or of all videos."""
    places = places or tuple(np.arange(len(result.labels)) for result in splits)
    by_metric = zip(*map(accuracies, splits, places), strict=False)
    return np.stack([np.mean(values, axis=0) for values in by_metric])


def accuracy_intervals(splits: Sequence[Outcome]) -> np.ndarray | None:
    """Percentile bootstrap intervals of the accuracies' mean over the splits, (3 or 4, 2).

    Videos are drawn again within each split; the clips of a video stay together. The training's
    own randomness is not in it. None if a split has a single video.
    """
    videos = [np.arange(len(result.labels)) for result in splits]
    return bootstrap_interval(videos, partial(mean_accuracies, splits))


def bootstrap_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]
) -> np.ndarray | None:
    """Percentile bootstrap interval of a statistic of samples that are drawn independently.

    Args:
        samples: one or more arrays (N,).
        statistic: resamples (resamples, n) of each sample -> values (..., resamples).

    Returns:
        Both ends, (..., 2); None if a sample has a single element.
    """
    if any(len(sample) < 2 for sample in samples):
        return None
    interval = bootstrap(
        samples,
        lambda *drawn, axis: statistic(*drawn),  # the axis is always the last
        n_resamples=RESAMPLES,
        batch=500,  # bounds the memory: rows of all videos
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return np.stack([interval.low, interval.high], axis=-1)


def exact_interval(correct: int, videos: int) -> tuple[float, float]:
    """Clopper-Pearson interval of an accuracy, percent: for 0 or 100 %, where a bootstrap fails."""
    interval = binomtest(correct, videos).proportion_ci(LEVEL, method="exact")
    return 100 * interval.low, 100 * interval.high


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test between two runs on the same videos, hits bool (N,) each.

    Returns:
        How many videos only the first and only the second predicts correctly, and the two-sided
        p value of so uneven a division if both were equally good.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    return only_first, only_second, binomtest(only_first, only_first + only_second).pvalue


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: they bound the chance of one or more false findings in all tests.

    S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()


def class_accuracies(splits: Sequence[Outcome], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Videos of each class over all splits, and the share that is correct, percent.

    A class without videos is NaN.
    """
    labels = np.concatenate([result.labels for result in splits])
    correct = np.concatenate([result.top1 for result in splits])
    videos = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[correct], minlength=classes)
    return videos, np.where(videos > 0, 100 * hits / np.maximum(videos, 1), np.nan)
