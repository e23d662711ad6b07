"""Scores of timelines against a known truth, by hand-made cases."""

import json

import pytest

from datasets.files import DataError
from engine.analysis.timelines import Span, Spans, overlap, read_spans, score_timelines

TRUTH = Spans(10.0, [Span("a", 0, 4), Span("b", 6, 8)])


def test_the_truth_itself_is_perfect():
    scores = score_timelines([(TRUTH, TRUTH)])
    assert (scores.frame_accuracy, scores.f1, scores.mean_ap, scores.segments) == (1, 1, 1, 2)


def test_nothing_found_is_right_where_nothing_happens():
    scores = score_timelines([(TRUTH, Spans(10.0, []))])
    assert scores.frame_accuracy == pytest.approx(0.4)
    assert (scores.precision, scores.recall, scores.f1, scores.mean_ap) == (0, 0, 0, 0)


def test_each_true_segment_makes_one_right():
    found = Spans(10.0, [Span("a", 0, 3, 0.9), Span("a", 0, 4, 0.8), Span("b", 7.5, 9, 0.7)])
    scores = score_timelines([(TRUTH, found)])
    assert (scores.precision, scores.recall) == (pytest.approx(1 / 3), 0.5)
    assert scores.f1 == pytest.approx(2 / 5)
    assert scores.mean_ap == pytest.approx(0.5)  # a: 1, b: 0


def test_a_wrong_segment_that_is_surer_costs_precision():
    found = Spans(10.0, [Span("a", 5, 6, 0.9), Span("a", 0, 4, 0.5)])
    assert score_timelines([(TRUTH, found)]).mean_ap == pytest.approx(0.25)


def test_overlap():
    assert overlap(Span("a", 0, 2), Span("a", 1, 3)) == pytest.approx(1 / 3)
    assert overlap(Span("a", 0, 1), Span("a", 2, 3)) == 0


def test_files_are_read_and_others_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"seconds": 2, "segments": [], "more": 1}))
    assert read_spans(tmp_path / "a.json") == Spans(2, [])
    (tmp_path / "b.json").write_text('{"seconds": -1, "segments": []}')
    for name in ("b.json", "c.json"):
        with pytest.raises((DataError, OSError), match=name):
            read_spans(tmp_path / name)
