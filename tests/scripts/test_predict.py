"""scripts/predict.py as a user runs it: the test's scores, timelines, and bad input named."""

import csv
import json
import os

import numpy as np
import pytest

from scripts import predict, score_timelines
from scripts.data import join_videos
from scripts.eval import combined_demo, spatial_demo3D, spatial_demo_bert
from tests.conftest import ROOT, SHARED, needs_videos
from tests.engine.applying.made import coloured, noisy, save_network, save_sure_network, write_video

KINETICS = ROOT / "weights" / "i3d-rgb-kinetics400.pt"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos with their list, as a dataset whose source are the files themselves."""
    root = tmp_path_factory.mktemp("data")
    counts = {"a": 40, "b": 70, "c": 9}
    for seed, (name, count) in enumerate(counts.items()):
        write_video(root / "videos" / f"{name}.mp4", noisy(count, (340, 256), seed))
    lists = root / "settings" / "made"
    lists.mkdir(parents=True)
    lines = [f"{name} {count} {label}\n" for label, (name, count) in enumerate(counts.items())]
    (lists / "val_rgb_split1.txt").write_text("".join(lines))
    (lists / "classes.txt").write_text("left\nmiddle\nright\n")
    save_network(root / "model.pth", "rgb_tiny3D16f_bert10")
    return root


@pytest.mark.parametrize("crops", ["--ten-crop", "--no-ten-crop"])
@pytest.mark.parametrize("script", [spatial_demo3D, spatial_demo_bert])
def test_a_trimmed_video_gets_the_tests_score_to_the_last_bit(videos, tmp_path, script, crops):
    """Frames of the same decoded size: the difference to frame folders is their JPEG loss."""
    flags = ["-d", "made", "--settings", videos / "settings", "--frames", videos / "videos"]
    flags += ["--source", "videos", "-a", "rgb_tiny3D16f_bert10", "--workers", "0", crops]
    flags += ["--checkpoint", videos / "model.pth", "--results", tmp_path]
    assert script.main([*map(str, flags), "--scores", str(tmp_path / "scores.npz")]) == 0
    clips = "multi" if script is spatial_demo3D else "single"
    flags = [videos / "videos", "--checkpoint", videos / "model.pth", "--clips", clips, crops]
    assert predict.main([*map(str, flags), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    with np.load(tmp_path / "scores.npz") as data:
        scores = data["score"].astype(np.float64)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = exponents / exponents.sum(axis=1, keepdims=True)
    probabilities = np.array([video["probabilities"] for video in found["videos"]])
    assert np.abs(probabilities - wanted).max() < 1e-12  # a float32 score moves them by 1e-8


def test_two_streams_are_fused_in_the_order_of_the_test(tmp_path, videos):
    rgb = save_network(tmp_path / "rgb.pth", "rgb_tiny3D16f")
    flow = save_network(tmp_path / "flow.pth", "flow_tiny3D16f")
    flags = [videos / "videos", "--checkpoint", rgb, "--checkpoint_flow", flow]
    assert predict.main([*map(str, flags), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["networks"] == ["rgb_tiny3D16f", "flow_tiny3D16f"]
    assert all(sum(v["probabilities"]) == pytest.approx(1) for v in found["videos"])
    assert combined_demo  # its fusion is compared in tests/engine/applying/test_predictor.py


def test_bad_sources_are_named_and_the_others_done(tmp_path, videos, capsys):
    os.mkfifo(tmp_path / "silent")
    (tmp_path / "notes.mp4").write_text("no video")
    write_video(tmp_path / "one.mp4", noisy(1))
    words = [tmp_path / "silent", tmp_path / "notes.mp4", tmp_path / "one.mp4", tmp_path / "gone"]
    words += [videos / "videos" / "c.mp4"]
    flags = ["--checkpoint", videos / "model.pth", "--csv", tmp_path / "a.csv", "--deadline", 0.5]
    assert predict.main([*map(str, words), *map(str, flags)]) == 1
    said = capsys.readouterr()
    for name in ("silent", "notes.mp4", "one.mp4", "gone"):
        (line,) = [line for line in said.err.splitlines() if name in line]
        assert line.startswith("error: ")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and {row["source"] for row in rows} == {str(words[-1])}
    assert {row["class"] for row in rows} == {"left", "middle", "right"}


def test_a_timeline_from_joined_videos_to_its_score(tmp_path, capsys):
    for label, name in enumerate(("left", "middle", "right")):
        for number in range(4):
            path = tmp_path / "clips" / name / f"{number}.mp4"
            write_video(path, coloured([(label, 60 + 10 * number)]))
    flags = ["--size", "64x48", "--background", "right", "--clips", "6", "--fps", "25"]
    folders = [str(tmp_path / name) for name in ("clips", "joined", "found")]
    assert join_videos.main([folders[0], "--output", folders[1], *flags]) == 0
    model = save_sure_network(tmp_path / "a.pth", fingerprint={"fps": 25.0})
    flags = ["--checkpoint", str(model), "--background", "right", "--smoothing", "0"]
    assert predict.main([folders[1], "--timeline", "--output", folders[2], *flags]) == 0
    names = sorted(p.name for p in (tmp_path / "found").iterdir())
    assert names == [f"joined_0{n}.{end}" for n in (0, 1) for end in ("csv", "json", "png", "srt")]
    numbers = tmp_path / "numbers.json"
    assert score_timelines.main([*folders[1:], "--json", str(numbers)]) == 0
    scores = json.loads(numbers.read_text())
    truths = [json.loads(p.read_text()) for p in (tmp_path / "joined").glob("*.json")]
    assert scores["segments"] == sum(len(t["segments"]) for t in truths) >= 4
    shown = {s["label"] for t in truths for s in t["segments"]}
    assert shown == {"left", "middle"}  # the background is no action
    assert scores["frame_accuracy"] > 0.9 and scores["f1"] > 0.8 and scores["mean_ap"] > 0.8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--run DIR"),
        (["--run", "x", "--checkpoint", "y"], "--run DIR"),
        (["--checkpoint", "M", "--overlay", "a.mp4"], "--overlay"),
        (["--checkpoint", "M", "--timeline", "--json", "a.json"], "--output"),
        (["--checkpoint", "M", "--live", "--timeline"], "live"),
        (["--checkpoint", "M", "--timeline", "--background", "nobody"], "nobody"),
        (["--checkpoint", "M", "--enter", "0.3"], "--leave"),
    ],
)
def test_flags_that_exclude_each_other_are_refused(videos, flags, message):
    flags = [str(videos / "model.pth") if flag == "M" else flag for flag in flags]
    with pytest.raises(ValueError, match=message):
        predict.main([str(videos / "videos"), *flags])


@needs_videos
@pytest.mark.skipif(not KINETICS.exists(), reason="scripts/weights.py get i3d-rgb-kinetics400")
def test_a_real_video_is_called_what_it_is(tmp_path):
    clip = SHARED / "data" / "clips" / "arm_wrestling.mp4"
    flags = ["--checkpoint", KINETICS, "--clips", "single", "--no-ten-crop"]
    flags += ["--batch-size", 1, "--json", tmp_path / "found.json"]
    assert predict.main([str(clip), *map(str, flags)]) == 0
    (video,) = json.loads((tmp_path / "found.json").read_text())["videos"]
    assert video["top"][0]["class"] == "arm wrestling" and video["frames"] == 280
    assert video["top"][0]["probability"] >= 0.99
