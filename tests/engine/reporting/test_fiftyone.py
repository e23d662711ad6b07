"""The dataset for FiftyOne: its JSON, and that its videos can be played."""

import json

import av
import numpy as np
import pytest

from engine import UsageError
from engine.config import ReportConfig
from scripts import to_fiftyone
from tests.engine.reporting.score_files import logits, write_test

RGB = "rgb_tiny3D16f"


def test_samples_hold_truth_and_answers(tiny, tmp_path, capsys):
    lines = (tiny.lists / "val_rgb_split1.txt").read_text().splitlines()
    labels = [int(line[-1]) for line in lines]
    scores = logits([(label, 0.75) for label in labels])
    scores[0], scores[1] = logits([(2, 0.5)])[0], np.nan
    path = write_test(
        tmp_path,
        RGB,
        scores,
        labels,
        videos=[line.rsplit(" ", 2)[0] for line in lines],
        classes=["left", "middle", "right"],
        settings=str(tiny.settings),
        frames=str(tiny.frames),
    )
    output = tmp_path / "out"
    assert to_fiftyone.main([str(path), "--output", str(output)]) == 0
    assert "9 samples" in capsys.readouterr().out
    samples = json.loads((output / "samples.json").read_text())["samples"]
    assert "version" not in (metadata := json.loads((output / "metadata.json").read_text()))
    assert metadata["info"]["classes"] == ["left", "middle", "right"]
    first, second, third = samples[:3]
    assert first["ground_truth"]["label"] == "left" and first["tags"] == ["wrong: RGB"]
    assert first["rgb"]["label"] == "right" and first["rgb"]["_cls"] == "Classification"
    assert first["rgb"]["confidence"] == pytest.approx(0.5)
    assert first["rgb"]["logits"] == pytest.approx(scores[0].tolist())
    assert second["rgb"] is None and second["tags"] == ["wrong: RGB"] and third["tags"] == []
    # 36, 17 and 2 frames
    with av.open(str(output / first["filepath"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == 36
    with pytest.raises(UsageError, match="is not empty"):
        to_fiftyone.main([str(path), "--output", str(output)])


def test_tests_of_different_videos_are_refused(tmp_path):
    paths = [
        write_test(tmp_path, name, logits([(0, 0.9)]), [0], videos=[name], arch=RGB, split=split)
        for split, name in enumerate("ab", 1)
    ]
    with pytest.raises(UsageError, match=r"a\.npz and .*b\.npz test different videos"):
        to_fiftyone.export_fiftyone(ReportConfig(output=tmp_path / "out"), paths)
