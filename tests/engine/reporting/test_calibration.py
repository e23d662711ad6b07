"""Probabilities and the calibration error, by hand-made numbers."""

import numpy as np
import pytest

from engine.metrics import fuse, softmax, unit_scale
from engine.reporting.calibration import BINS, reliability


def test_softmax_of_extremes_is_finite_and_of_nan_is_nan():
    scores = np.array([[3e38, -3e38], [0, 0], [np.nan, 1], [np.inf, 0]], np.float32)
    found = softmax(scores)
    assert found[:2].tolist() == [[1, 0], [0.5, 0.5]]
    assert np.isnan(found[2:]).all()
    assert softmax(np.array([[7.0]])).tolist() == [[1.0]]


def test_the_error_is_the_weighted_gap_of_the_bins():
    # two answers of 0.95, one correct; three of 0.55, all correct
    shares = np.array([0.95, 0.95, 0.55, 0.55, 0.55])
    probabilities = np.stack([shares, 1 - shares], axis=1)
    found = reliability(probabilities, np.array([True, False, True, True, True]))
    assert len(found.bins) == BINS
    assert found.error == pytest.approx(100 * (2 / 5 * 0.45 + 3 / 5 * 0.45))
    assert found.confidence == pytest.approx(71) and found.accuracy == pytest.approx(80)
    assert [b.videos for b in found.bins] == [0, 0, 0, 0, 0, 3, 0, 0, 0, 2]
    assert found.bins[9].accuracy == 0.5 and found.bins[9].confidence == pytest.approx(0.95)


def test_a_calibrated_network_has_no_error_and_bins_hold_their_upper_end():
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    found = reliability(probabilities, np.array([True, False, True]))
    assert found.error == 0
    assert found.bins[4].videos == 2 and found.bins[9].videos == 1


def test_videos_without_scores_are_left_out():
    nothing = np.full((2, 2), np.nan)
    assert reliability(nothing, np.zeros(2, bool)) is None
    found = reliability(np.array([[np.nan, np.nan], [1.0, 0.0]]), np.array([False, True]))
    assert sum(b.videos for b in found.bins) == 1 and found.accuracy == 100


def test_two_equal_streams_have_the_probabilities_of_one():
    scores = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 3
    fused = fuse([scores, scores])
    np.testing.assert_allclose(
        softmax(fused * unit_scale([scores, scores])), softmax(scores), rtol=1e-5
    )
