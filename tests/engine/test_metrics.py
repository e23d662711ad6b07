"""Metrics and fusion on numbers that can be checked by hand."""

import numpy as np
import pytest
import torch

from engine.metrics import (
    EpochStats,
    confusion_matrix,
    count_flops,
    fuse,
    matrix_rate,
    mean_class_accuracy,
    topk_accuracy,
    topk_hits,
)

SCORES = np.array([[3, 2, 1, 0], [0, 1, 2, 3], [0, 3, 2, 1], [4, 1, 2, 3]], np.float32)
LABELS = np.array([0, 3, 2, 1])


def test_accuracies():
    assert topk_accuracy(SCORES, LABELS, 1) == 50
    assert topk_accuracy(SCORES, LABELS, 2) == 75
    assert topk_accuracy(SCORES, LABELS, 3) == 75
    assert topk_accuracy(SCORES, LABELS, 4) == topk_accuracy(SCORES, LABELS, 9) == 100


def test_hits_are_by_video():
    assert topk_hits(SCORES, LABELS, 1).tolist() == [True, True, False, False]
    assert topk_hits(SCORES, LABELS, 2).tolist() == [True, True, True, False]


def test_a_constant_answer_is_wrong():
    assert mean_class_accuracy(np.zeros((4, 4)), LABELS) == 0
    assert topk_accuracy(np.zeros((4, 4)), LABELS, 1) == 0
    assert topk_accuracy(np.full((4, 4), np.nan), LABELS, 1) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(4))
def test_scores_that_are_no_numbers_are_wrong(bad, place):
    scores = SCORES.copy()
    scores[:, place] = bad
    assert not topk_hits(scores, LABELS, 4).any()
    assert confusion_matrix(scores, LABELS).sum() == 0


def test_confusion_and_mean_class_accuracy():
    scores = np.eye(3)[[0, 0, 1, 1]]
    labels = np.array([0, 0, 0, 1])
    assert confusion_matrix(scores, labels).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert mean_class_accuracy(scores, labels) == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_a_video_without_scores_counts_as_wrong():
    scores = np.eye(3)[[0, 1, 2, 0]]
    scores[3] = np.nan
    labels = np.array([0, 1, 2, 0])
    assert topk_accuracy(scores, labels, 1) == topk_accuracy(scores, labels, 3) == 75
    assert confusion_matrix(scores, labels).sum() == 3
    assert mean_class_accuracy(scores, labels) == pytest.approx(100 * (0.5 + 1 + 1) / 3)


def test_fusion_divides_by_the_norm_before_adding():
    rgb, flow = np.array([[3.0, 4.0]]), np.array([[100.0, 0.0]])
    np.testing.assert_allclose(fuse([rgb, flow]), [[1.6, 0.8]])


def test_fusion_with_weights():
    rgb, flow = np.array([[3.0, 4.0]]), np.array([[100.0, 0.0]])
    np.testing.assert_allclose(fuse([rgb, flow], [2, 0.5]), [[1.7, 1.6]])
    np.testing.assert_allclose(fuse([rgb, flow, flow], [1, 0, 1]), fuse([rgb, flow]))
    assert fuse([rgb.astype(np.float32)], [np.float64(2)]).dtype == np.float32
    with pytest.raises(ValueError, match="shorter"):
        fuse([rgb, flow], [1])


def test_flops_of_a_product():
    layer = torch.nn.Linear(4, 3)
    inputs = torch.randn(2, 4, requires_grad=True)
    assert count_flops(layer, inputs) == 2 * 2 * 4 * 3
    assert count_flops(layer, inputs, backward=True) == 3 * 2 * 2 * 4 * 3
    assert layer.training and layer.weight.grad is None


@pytest.mark.parametrize("groups", [1, 4])
def test_flops_of_a_convolution(groups):
    layer = torch.nn.Conv3d(8, 16, 3, padding=1, groups=groups)
    forward = 2 * (8 // groups) * 27 * 16 * (4 * 5 * 6)
    inputs = torch.randn(1, 8, 4, 5, 6, requires_grad=True)
    assert count_flops(layer, inputs) == forward
    assert count_flops(layer, inputs, backward=True) == 3 * forward
    assert count_flops(layer, inputs.detach(), backward=True) == 2 * forward


def test_flops_are_counted_after_exact_has_set_cudnn():
    kinds = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        assert count_flops(torch.nn.Linear(4, 3), torch.randn(2, 4)) == 2 * 2 * 4 * 3
        assert torch.backends.cudnn.enabled
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def test_epoch_stats():
    result = EpochStats(videos=5, clips=10, loss_sum=9.0, top1_hits=3, top3_hits=4)
    assert result.loss == pytest.approx(9 / 5)
    assert (result.top1, result.top3) == (60, 80)
    result.loading, result.computing = 1, 3
    assert (result.waiting, result.clips_per_second) == (25, 2.5)


def test_the_matrix_rate_is_the_fastest_products(monkeypatch):
    """Products of size 16, transposed, take a tenth of the others' time for each operation."""
    clock = [0.0]
    monkeypatch.setattr("engine.metrics.time.perf_counter", lambda: clock[0])
    product = torch.Tensor.__matmul__

    def timed(a, b):
        fast = len(a) == 16 and not b.is_contiguous()
        clock[0] += len(a) ** 3 * (1e-7 if fast else 1e-6)
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", timed)
    rate = matrix_rate(torch.device("cpu"), torch.bfloat16, (8, 16, 32), 0.01)
    assert rate.operations == pytest.approx(2e7)
    assert rate.which == "products of size 16, transposed, bfloat16"


def test_the_matrix_rate_of_this_machine():
    rate = matrix_rate(torch.device("cpu"), sizes=(64, 128), seconds=0.01)
    assert rate.operations > 1e6 and rate.which.endswith("float32")
