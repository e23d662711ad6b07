"""The benchmarks: their truth is true, and their reports hold what was measured."""

import cv2
import numpy as np
import pytest
import torch

from datasets.files import DataError
from engine import UsageError
from scripts import benchmark
from scripts.benchmarks import flow, sample_data
from scripts.benchmarks.flow import MOTIONS, make_pair
from tests.conftest import SHARED, needs_videos

TEXTURES = {
    "photo": sample_data.photograph(),
    "leaves": sample_data.dead_leaves(np.random.default_rng(0)),
}


@pytest.fixture(autouse=True)
def threads():
    """A benchmark sets its process's threads; the tests after it have theirs again."""
    number, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(number)
    cv2.setNumThreads(of_opencv)


def test_a_whole_shift_moves_pixels_exactly():
    pair = make_pair(TEXTURES["leaves"], 3, -2)
    np.testing.assert_array_equal(pair.second[:-2, 3:], pair.first[2:, :-3])
    assert (pair.flow == np.array([3, -2])[:, None, None]).all()
    assert pair.seen[2:, :-3].all() and not pair.seen[:2].any() and not pair.seen[:, -3:].any()


@pytest.mark.parametrize("motion", [m for motions in MOTIONS.values() for m in motions], ids=str)
@pytest.mark.parametrize("texture", TEXTURES)
def test_the_second_frame_warped_back_by_the_truth_is_the_first(texture, motion):
    assert TEXTURES[texture].shape == (320, 404, 3)
    pair = make_pair(TEXTURES[texture], **motion)
    y, x = np.mgrid[:256, :340].astype(np.float32)
    back = cv2.remap(pair.second, x + pair.flow[0], y + pair.flow[1], cv2.INTER_CUBIC)
    inside = cv2.erode(pair.seen.astype(np.uint8), np.ones((5, 5))) > 0
    difference = np.abs(back.astype(float) - pair.first)[inside].mean()
    still = np.abs(pair.second.astype(float) - pair.first)[inside].mean()
    assert difference < 2.5 < still and difference < still / 3


def test_errors_are_distances_in_pixels_where_the_point_is_seen():
    pair = make_pair(TEXTURES["photo"], 3, -4)
    assert pair.error(pair.flow) == 0
    assert pair.error(np.zeros_like(pair.flow)) == pytest.approx(5)
    beyond = np.where(pair.seen, pair.flow, 1000)
    assert pair.error(beyond) == 0


def test_the_report(tmp_path, capsys, monkeypatch):
    few = {kind: motions[:1] for kind, motions in MOTIONS.items()}
    monkeypatch.setattr(flow, "MOTIONS", few)
    document = tmp_path / "FLOW.md"
    begin, end = flow.MARKERS
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    flags = ["flow", "--engines", "dis", "--repeats", "1", "--device", "cpu"]
    flags += ["--update", str(document)]
    assert benchmark.main(flags) == 0
    text = document.read_text()
    assert text.startswith(
        f"before\n{begin}\nMean end-point error in pixels over the textures photo"
    )
    assert text.endswith(f"{end}\nafter\n") and "old" not in text
    (line,) = [line for line in text.splitlines() if "`dis`" in line]
    assert line in capsys.readouterr().out
    errors = [float(cell) for cell in line.split("|")[2:7]]
    assert all(0 < error < 0.5 for error in errors)
    assert np.mean(errors[:4]) == pytest.approx(errors[4], abs=1e-3)
    document.write_text("no markers")
    with pytest.raises(UsageError, match="needs one line"):
        benchmark.main(flags)
    with pytest.raises(DataError, match="no flow engine 'dsi'"):
        benchmark.main(["flow", "--engines", "dsi"])


@needs_videos
def test_agreement_with_opencv(capsys, monkeypatch):
    monkeypatch.setattr(flow, "FRAME_SIZE", (85, 64))
    video = SHARED / "data/clips/several_shots.mp4"
    assert benchmark.main(["flow", "--video", str(video), "--pairs", "2", "--device", "cpu"]) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")]
    assert cells[1:3] == ["several_shots.mp4", "2"]
    motion, pixels, levels, itself = map(float, cells[3:7])
    assert motion > 0.01 and pixels < 0.15 and levels < 1 and itself < 0.15


def test_a_video_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "no_video.mp4"
    path.write_text("no video")
    with pytest.raises(DataError, match="cannot read the video .*no_video.mp4"):
        benchmark.main(["flow", "--video", str(path), "--device", "cpu"])
