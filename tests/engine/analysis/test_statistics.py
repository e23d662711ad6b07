"""Statistics against exact distributions, values of statsmodels 0.15, and sums done by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from engine.analysis.statistics import (
    Outcome,
    accuracies,
    accuracy_intervals,
    class_accuracies,
    exact_interval,
    holm,
    mcnemar,
    mean_accuracies,
    outcome,
)
from engine.metrics import mean_class_accuracy, topk_accuracy


def an_outcome(right: int, videos: int) -> Outcome:
    hits = np.arange(videos) < right
    return Outcome(np.arange(videos) % 3, hits, np.ones(videos, bool))


def test_outcome_agrees_with_the_metrics():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 6, 50)
    scores[3] = np.nan
    values = mean_accuracies([outcome(scores, labels)])
    expected = [topk_accuracy(scores, labels, 1), topk_accuracy(scores, labels, 3)]
    np.testing.assert_allclose(values, [*expected, mean_class_accuracy(scores, labels)])


def test_clips_are_counted_one_by_one_and_an_unscored_video_is_wrong():
    eye, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    clips = np.concatenate([eye[[0, 0, 1]], eye[[1]], np.full((1, 3), np.nan)])
    result = outcome(eye, labels, clips, np.array([0, 0, 0, 1, 2]))
    assert (result.clips.tolist(), result.correct_clips.tolist()) == ([3, 1, 1], [2, 1, 0])
    assert accuracies(result, np.arange(3))[3] == pytest.approx(100 * 3 / 5)
    assert accuracies(result, np.array([1, 1, 0]))[3] == pytest.approx(100 * 4 / 5)


def test_accuracies_of_drawn_videos_by_a_loop():
    rng = np.random.default_rng(1)
    labels, hits = rng.integers(0, 4, 20), rng.random((2, 20)) < 0.6
    clips = rng.integers(1, 5, 20)
    right = rng.integers(0, clips + 1)
    drawn = rng.integers(0, 20, (9, 20))
    found = accuracies(Outcome(labels, *hits, clips, right), drawn)
    for column, places in zip(found.T, drawn, strict=True):
        by_class = [
            np.mean([hits[0, p] for p in places if labels[p] == c])
            for c in set(labels[places].tolist())
        ]
        clip = sum(right[p] for p in places) / sum(clips[p] for p in places)
        expected = [hits[0, places].mean(), hits[1, places].mean(), np.mean(by_class), clip]
        np.testing.assert_allclose(column, 100 * np.array(expected))


@pytest.mark.parametrize(("right", "videos"), [(45, 60), (86, 96), (1071, 1530)])
def test_bootstrap_of_one_split_is_binomial(right, videos):
    """Drawing videos again draws their number of hits from a binomial distribution."""
    interval = accuracy_intervals([an_outcome(right, videos)])[0]
    expected = 100 * binom.ppf([0.025, 0.975], videos, right / videos) / videos
    np.testing.assert_allclose(interval, expected, atol=100 * 1.01 / videos)  # a video more or less


def test_bootstrap_over_splits_draws_within_each():
    """The mean's exact distribution is that of two binomials, summed."""
    a, b, n = 30, 50, 60
    pmf = np.convolve(binom.pmf(range(n + 1), n, a / n), binom.pmf(range(n + 1), n, b / n))
    expected = 100 * np.searchsorted(np.cumsum(pmf), [0.025, 0.975]) / (2 * n)
    interval = accuracy_intervals([an_outcome(a, n), an_outcome(b, n)])[0]
    np.testing.assert_allclose(interval, expected, atol=100 * 1.01 / (2 * n))
    pooled = 100 * binom.ppf([0.025, 0.975], 2 * n, (a + b) / (2 * n)) / (2 * n)
    assert np.diff(interval) < np.diff(pooled)  # between-split spread is not drawn


def test_bootstrap_repeats_and_needs_two_videos():
    result = an_outcome(4, 9)
    assert np.array_equal(accuracy_intervals([result]), accuracy_intervals([result]))
    assert accuracy_intervals([result, an_outcome(1, 1)]) is None


def test_the_exact_interval_where_all_are_right():
    """The rule of Clopper and Pearson at the ends: (alpha / 2)^(1 / n)."""
    assert exact_interval(96, 96) == pytest.approx((100 * 0.025 ** (1 / 96), 100))
    assert exact_interval(0, 60) == pytest.approx((0, 5.962949228616692))  # statsmodels


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [  # statsmodels: mcnemar(table, exact=True).pvalue
        (3, 9, 0.14599609375),
        (0, 10, 0.001953125),
        (25, 12, 0.04703102743951604),
        (7, 7, 1.0),
        (1, 38, 1.4551915228366852e-10),
        (0, 0, 1.0),
    ],
)
def test_mcnemar(first, second, p):
    a = np.array([True] * first + [False] * second + [True] * 50 + [False] * 20)
    b = np.array([False] * first + [True] * second + [True] * 50 + [False] * 20)
    assert mcnemar(a, b) == (first, second, pytest.approx(p, rel=1e-9))
    assert mcnemar(b, a)[2] == pytest.approx(p, rel=1e-9)


def test_mcnemar_by_counting():
    """The p value is the share of all ways to share out the discordant videos as unevenly."""
    ways = [sum(way) for way in itertools.product((0, 1), repeat=8)]
    as_uneven = np.mean([min(n, 8 - n) <= 1 for n in ways])
    assert mcnemar(np.arange(8) < 1, np.arange(8) >= 1)[2] == pytest.approx(as_uneven)


def test_holm():
    """statsmodels: multipletests(p, method="holm")."""
    adjusted = holm([0.01, 0.04, 0.03, 0.005, 0.9])
    assert adjusted == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert holm([0.3]) == [0.3] and holm([]) == []


def test_class_accuracies_over_splits():
    first = Outcome(np.array([0, 0, 2]), np.array([True, False, True]), np.ones(3, bool))
    second = Outcome(np.array([0]), np.array([True]), np.ones(1, bool))
    videos, share = class_accuracies([first, second], 4)
    assert videos.tolist() == [3, 0, 1, 0]
    np.testing.assert_allclose(share, [200 / 3, np.nan, 100, np.nan])
