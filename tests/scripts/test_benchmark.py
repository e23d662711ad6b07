"""The benchmarks: their truth is true, and their reports hold what was measured."""

import json

import cv2
import numpy as np
import pytest

from datasets.lists import DataError
from engine import UsageError
from scripts import benchmark
from scripts.benchmarks import agreement, flow
from scripts.benchmarks.motion import (
    MOTIONS,
    Motion,
    as_texture,
    built_in_textures,
    make_pair,
    read_textures,
)
from tests.conftest import SHARED, needs_videos

TEXTURES = built_in_textures()


def test_a_whole_shift_moves_pixels_exactly():
    pair = make_pair(TEXTURES["leaves"], Motion("", 3, -2))
    np.testing.assert_array_equal(pair.second[:-2, 3:], pair.first[2:, :-3])
    assert (pair.flow == np.array([3, -2])[:, None, None]).all()
    assert pair.seen[2:, :-3].all() and not pair.seen[:2].any() and not pair.seen[:, -3:].any()


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_the_second_frame_warped_back_by_the_truth_is_the_first(texture, name):
    pair = make_pair(TEXTURES[texture], MOTIONS[name])
    y, x = np.mgrid[:256, :340].astype(np.float32)
    back = cv2.remap(pair.second, x + pair.flow[0], y + pair.flow[1], cv2.INTER_CUBIC)
    inside = cv2.erode(pair.seen.astype(np.uint8), np.ones((5, 5))) > 0
    difference = np.abs(back.astype(float) - pair.first)[inside].mean()
    still = np.abs(pair.second.astype(float) - pair.first)[inside].mean()
    assert difference < 2.5 < still and difference < still / 3


def test_errors_are_distances_in_pixels_where_the_point_is_seen():
    pair = make_pair(TEXTURES["photo"], Motion("", 3, -4))
    assert pair.error(pair.flow) == 0
    assert pair.error(np.zeros_like(pair.flow)) == pytest.approx(5)
    beyond = np.where(pair.seen, pair.flow, 1000)
    assert pair.error(beyond) == 0


def test_textures_from_files(tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.zeros((100, 900, 3), np.uint8))
    assert read_textures([path], [])["image.png"].shape == (320, 404, 3)
    assert as_texture(np.zeros((1000, 500, 3), np.uint8)).shape == (320, 404, 3)
    path.write_text("no image")
    with pytest.raises(DataError, match="cannot read the image"):
        read_textures([path], [])
    with pytest.raises(DataError, match="cannot read the video"):
        read_textures([], [path])


def test_the_report(tmp_path, capsys, monkeypatch):
    few = {name: MOTIONS[name] for name in ("(1, 0)", "(8, 5)", "1 degree", "2 % larger")}
    monkeypatch.setattr(flow, "MOTIONS", few)
    document = tmp_path / "FLOW.md"
    document.write_text(f"before\n{flow.BEGIN}\nold\n{flow.END}\nafter\n")
    flags = ["flow", "--engines", "dis", "--repeats", "1", "--device", "cpu"]
    flags += ["--json", str(tmp_path / "flow.json"), "--update", str(document)]
    assert benchmark.main(flags) == 0
    report = json.loads((tmp_path / "flow.json").read_text())
    result = report["engines"]["dis"]
    assert set(result["errors"]) == set(TEXTURES) and result["pairs"] == 8
    assert all(0 < e < 0.5 for errors in result["errors"].values() for e in errors.values())
    text = document.read_text()
    assert text.startswith(f"before\n{flow.BEGIN}\n") and text.endswith(f"{flow.END}\nafter\n")
    assert "| `dis` | 0.0" in text and "old" not in text and "| `dis` |" in capsys.readouterr().out
    document.write_text("no markers")
    with pytest.raises(UsageError, match="needs one line"):
        benchmark.main(flags)
    with pytest.raises(DataError, match="no flow engine 'dsi'"):
        benchmark.main(["flow", "--engines", "dsi"])


@needs_videos
def test_agreement(capsys, monkeypatch):
    monkeypatch.setattr(agreement, "SIZE", (85, 64))
    video = SHARED / "data/clips/several_shots.mp4"
    assert benchmark.main(["agreement", str(video), "--pairs", "2", "--device", "cpu"]) == 0
    cells = capsys.readouterr().out.splitlines()[-1].split("|")
    assert cells[1:3] == [" several_shots.mp4 ", " 2 "]
    motion, pixels, levels, itself = map(float, cells[3:7])
    assert motion > 0.01 and pixels < 0.15 and levels < 1 and itself < 0.15
