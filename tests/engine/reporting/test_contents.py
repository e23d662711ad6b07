"""Score files, JSONs and logs as a report has them."""

import json

import numpy as np
import pytest

from datasets import DataError
from engine.config import ReportConfig
from engine.metrics import fuse
from engine.reporting.contents import read_contents
from engine.reporting.views import (
    class_rows,
    frequent_confusions,
    matrix_classes,
    matrix_rows,
    pair_rows,
    wanted_videos,
)
from tests.conftest import ROOT
from tests.engine.reporting.score_files import CLASSES, logits, write_test

RGB, FLOW = "rgb_tiny3D16f", "flow_tiny3D16f"
LABELS = [0, 0, 1, 2]
OF_RGB = logits([(0, 0.9), (1, 0.8), (1, 0.6), (0, 0.5)])
OF_FLOW = logits([(0, 0.7), (0, 0.95), (2, 0.6), (1, 0.5)])


@pytest.fixture
def fused(tmp_path):
    """A fusion's file, which holds its streams."""
    streams = {RGB: OF_RGB, FLOW: OF_FLOW}
    more = {"streams": {name: {"unscored": {}} for name in streams}}
    path = write_test(tmp_path, "fused", fuse([OF_RGB, OF_FLOW]), LABELS, streams=streams)
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(record | more))
    return path


def test_a_fusions_file_is_three_tests(fused):
    content = read_contents(ReportConfig(), [fused])
    assert [test.name for test in content.tests] == ["RGB", "Flow", "Fused"]
    assert content.sets == [[0, 1, 2]] and content.tests[2].parts == (0, 1)
    rgb, flow, both = content.tests
    assert rgb.correct.tolist() == [True, False, True, False]
    assert flow.correct.tolist() == [True, True, False, False]
    assert rgb.numbers["top1"]["value"] == 50
    np.testing.assert_allclose(rgb.probabilities[0], [0.9, 0.05, 0.05], atol=1e-6)
    np.testing.assert_allclose(both.scores.scores, fuse([OF_RGB, OF_FLOW]), atol=1e-6)


def test_a_stream_with_a_file_of_its_own_counts_once(fused, tmp_path):
    rgb = write_test(tmp_path, RGB, OF_RGB, LABELS)
    content = read_contents(ReportConfig(), [fused, rgb])
    assert [test.name for test in content.tests] == ["RGB", "Flow", "Fused"]
    assert content.tests[0].scores.path == rgb and content.tests[2].parts == (0, 1)


def test_separate_files_are_put_in_one_order_and_paired(tmp_path):
    """A fusion written before its file held its streams."""
    rgb = write_test(tmp_path, RGB, OF_RGB, LABELS)
    videos = [f"video {n} 'a' & <b>" for n in range(4)]
    flow = write_test(tmp_path, FLOW, OF_FLOW[::-1], LABELS[::-1], videos=videos[::-1])
    name = f"{RGB}+{FLOW}"
    both = write_test(tmp_path, name, fuse([OF_RGB, OF_FLOW]), LABELS)
    content = read_contents(ReportConfig(), [both, flow, rgb])
    assert [test.name for test in content.tests] == ["RGB", "Flow", "Fused"]
    assert content.tests[1].correct.tolist() == [True, True, False, False]
    assert content.tests[2].parts == (0, 1)
    first = pair_rows(content)[0]
    # the files' order is that of the command
    assert {content.tests[first[key]].name for key in ("first", "second")} == {"Fused", "Flow"}
    pairs = {
        frozenset((row["first"], row["second"])): (row["both"], row["neither"])
        for row in pair_rows(content)
    }
    assert pairs[frozenset((0, 1))] == (1, 1)


def test_classes_confusions_and_what_is_wanted_first(fused):
    content = read_contents(ReportConfig(), [fused])
    rgb, _, both = content.tests
    assert matrix_classes(rgb) == [0, 1, 2]
    assert matrix_rows(rgb, [0, 1, 2]) == [
        (0, [(0, 1, 5), (1, 1, 5), (2, 0, 0)]),
        (1, [(0, 0, 0), (1, 1, 10), (2, 0, 0)]),
        (2, [(0, 1, 10), (1, 0, 0), (2, 0, 0)]),
    ]
    assert sorted(frequent_confusions(rgb)) == [(0, 1, 1), (2, 0, 1)]
    rows = class_rows(content, both)
    assert [row["name"] for row in rows] == list(CLASSES)
    assert rows[0]["parts"] == [50, 100] and rows[0]["gain"] == rows[0]["accuracy"] - 100
    # the video that all predict correctly comes last, the least probable label first
    order = wanted_videos(content, [0, 1, 2])
    assert order[-1] == "video 0 'a' & <b>" and order[0] == "video 1 'a' & <b>"


def test_files_without_json_of_one_class_or_one_video(tmp_path):
    path = write_test(tmp_path, "plain", np.array([[3.0]], np.float32), [0], classes=["only"])
    path.with_suffix(".json").unlink()
    (test,) = read_contents(ReportConfig(), [path]).tests
    assert test.numbers["top1"]["value"] == 100 and test.numbers["top1"]["interval"] is None
    assert test.probabilities.tolist() == [[1.0]] and frequent_confusions(test) == []
    earlier = ROOT / "tests/earlier_files/scores/toy.npz"
    (test,) = read_contents(ReportConfig(), [earlier]).tests
    assert test.name == "RGB" and test.record.command == ""


def test_a_json_of_other_types_is_named(tmp_path):
    path = write_test(tmp_path, RGB, OF_RGB, LABELS, versions=["1"])
    with pytest.raises(DataError, match=rf"{RGB}\.json: not what a test writes: .*versions"):
        read_contents(ReportConfig(), [path])


def test_curves_come_from_the_checkpoints_folder_or_from_runs(tmp_path):
    epoch = {"loss": 1.5, "top1": 50.0}
    lines = [json.dumps({"epoch": n, "train": epoch, "val": epoch}) + "\n" for n in (1, 2, 2)]
    run = tmp_path / "runs" / f"toy_{RGB}_split1"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("".join(lines))
    path = write_test(tmp_path, RGB, OF_RGB, LABELS, checkpoint=str(run / "model_best.pth.tar"))
    for config in (ReportConfig(), ReportConfig(runs=tmp_path / "runs")):
        (training,) = read_contents(config, [path]).trainings
        assert training.name == run.name and [e.epoch for e in training.epochs] == [1, 2]
    (run / "args.json").write_text("{")
    content = read_contents(ReportConfig(), [path])
    assert not content.trainings and "args.json" in content.notes[0]
