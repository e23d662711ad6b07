"""explain.py: videos, a test's mistakes, faithfulness; what it writes and what it refuses."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import two_stream_bert2
from engine import UsageError
from engine.checkpoint import BEST
from engine.testing.score_files import write_scores
from scripts import cache_tokens, explain
from scripts.eval import spatial_demo_bert
from tests.conftest import SHARED, needs_videos

ARCH = "{}_tiny3D16f_bert10_FRMB"


def make_video(path: Path, frames: int) -> Path:
    """A square that moves to the right at 10 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for place in range(frames):
            picture = np.full((48, 64, 3), 40, np.uint8)
            picture[16:32, place % 48 : place % 48 + 16] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> dict[str, Path]:
    """A trained network of each modality, by one step."""
    folder = tmp_path_factory.mktemp("runs")
    for modality in ("rgb", "flow"):
        flags = [*tiny.flags, "--arch", ARCH.format(modality), "--workers", "0"]
        two_stream_bert2.main([*flags, "--output", str(folder), "--max-steps", "1", "-b", "12"])
    name = f"{tiny.name}_{ARCH}_split1"
    return {modality: folder / name.format(modality) for modality in ("rgb", "flow")}


def read(folder: Path) -> dict:
    return json.loads((folder / "explanations.json").read_text())


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_videos_are_explained_and_a_bad_one_is_named(runs, modality, tmp_path, capsys):
    good = [make_video(tmp_path / "a.mp4", 60), make_video(tmp_path / "short.mp4", 6)]
    (tmp_path / "sub").mkdir()
    twins = [make_video(tmp_path / "sub" / name, 20) for name in ("a.mp4", "a_2.mp4")]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    out = tmp_path / "out"
    flags = ["--run", str(runs[modality]), "--output", str(out), "--device", "cpu"]
    videos = [*map(str, (good[0], bad, good[1], *twins)), str(tmp_path / "nothing.mp4")]
    assert explain.main([*videos, *flags]) == 1
    said = capsys.readouterr()
    assert "bad.mp4" in said.err and "nothing.mp4" in said.err and "Traceback" not in said.err
    report = read(out)
    assert len(report["faults"]) == 2 and report["arch"] == ARCH.format(modality)
    pictures = [entry["picture"] for entry in report["videos"]]
    assert pictures == ["a.png", "short.png", "a_2.png", "a_2_2.png"]
    for entry in report["videos"]:
        assert cv2.imread(str(out / entry["picture"])) is not None
        with av.open(str(out / entry["film"])) as container:
            assert sum(1 for _ in container.decode(video=0)) == 16
        assert set(entry["best"]) == {"left", "middle", "right"}
        assert entry["probability"] == max(entry["best"].values())
        attention = np.array(entry["attention"]["all"])
        assert attention.shape == (8, 8) and (attention.sum(1) < 1).all()
    # the clip lies in the middle: 16 frames, for flow between 17, of 60 at 10 a second
    first = report["videos"][0]["spans"]
    assert first[0]["from"] == pytest.approx(2.2, abs=0.11)
    assert first[-1]["to"] - first[0]["from"] == pytest.approx(1.6)


def test_a_clip_from_a_given_time_and_the_score_of_a_given_class(runs, tmp_path):
    video = make_video(tmp_path / "a.mp4", 40)
    flags = [str(video), "--run", str(runs["rgb"]), "--output", str(tmp_path / "out")]
    assert explain.main([*flags, "--at", "1", "--class", "middle"]) == 0
    (entry,) = read(tmp_path / "out")["videos"]
    assert entry["class"] == "middle" and entry["spans"][0]["from"] == 1.0
    assert entry["probability"] == entry["best"]["middle"]
    assert explain.main([*flags, "--at", "100"]) == 1
    (fault,) = read(tmp_path / "out")["faults"]
    assert "a.mp4" in fault and "100.00 seconds" in fault
    with pytest.raises(UsageError, match="--class centre.*middle"):
        explain.main([*flags, "--class", "centre"])


def test_the_most_certain_mistakes_of_a_test(tiny, runs, tmp_path, capsys):
    places = ["--settings", str(tiny.settings), "--frames", str(tiny.frames)]
    results = ["--results", str(tmp_path), "--no-ten-crop", "--workers", "0"]
    network = ["--arch", ARCH.format("rgb"), "--runs", str(runs["rgb"].parent)]
    spatial_demo_bert.main([*tiny.flags, *network, *results])
    (scores,) = tmp_path.glob("*.npz")
    with np.load(scores) as file:
        videos, labels = file["video"], file["label"]
    # answers of which three are wrong: the second the most certain one, the fifth the least
    logits = np.zeros((len(videos), 3), np.float32)
    logits[np.arange(len(videos)), labels] = 9
    for place, margin in ((0, 3), (1, 5), (4, 1)):
        logits[place] = 0
        logits[place, (labels[place] + 1) % 3] = margin
    write_scores(scores, list(videos), labels, logits, ["left", "middle", "right"])
    flags = ["--run", str(runs["rgb"]), "--output", str(tmp_path / "out"), *places]
    assert explain.main([*flags, "--mistakes", "2", "--scores", str(scores)]) == 0
    entries = read(tmp_path / "out")["videos"]
    assert [entry["video"] for entry in entries] == [videos[1], videos[0]]
    names = ["left", "middle", "right"]
    for entry, place in zip(entries, (1, 0), strict=True):
        assert entry["label"] == names[labels[place]]
        assert entry["class"] == names[(labels[place] + 1) % 3]
        assert (tmp_path / "out" / entry["picture"]).exists()
        assert entry["time"] == "frames"  # nobody knows their rate
    # another network's scores, another list's, and none at all
    other = ["--run", str(runs["flow"]), "--output", str(tmp_path / "out"), *places]
    with pytest.raises(UsageError, match="not of flow_tiny3D16f"):
        explain.main([*other, "--mistakes", "2", "--scores", str(scores)])
    write_scores(scores, ["strange"], labels[:1], logits[1:2], names)
    with pytest.raises(UsageError, match="'strange' that is not in the test list"):
        explain.main([*flags, "--mistakes", "2", "--scores", str(scores)])
    with pytest.raises(UsageError, match="test the network first"):
        explain.main([*flags, "--mistakes", "2"])


def test_faithfulness_of_a_test_is_measured_and_printed(tiny, runs, tmp_path, capsys):
    places = ["--settings", str(tiny.settings), "--frames", str(tiny.frames)]
    flags = ["--run", str(runs["flow"]), "--output", str(tmp_path / "out"), *places]
    assert explain.main([*flags, "--faithfulness"]) == 0
    said = capsys.readouterr().out
    assert "most attended" in said and "95%" in said
    found = read(tmp_path / "out")["faithfulness"]
    assert found["videos"] == 9 and [row["deleted"] for row in found["rows"]] == [1, 2, 3, 4]
    assert all(
        row["interval"][0] <= row["difference"] <= row["interval"][1] for row in found["rows"]
    )
    # from a cache of the network's own tokens, which are float16, it is the same
    cache = str(tmp_path / "cache")
    network = ["--arch", ARCH.format("flow"), "--checkpoint", str(runs["flow"] / BEST)]
    views = ["--views", "1", "--clips", "single", "--no-ten-crop", "--workers", "0"]
    cache_tokens.main([*tiny.flags, *network, *views, "--cache", cache])
    assert explain.main([*flags, "--faithfulness", "--cache", cache]) == 0
    again = read(tmp_path / "out")["faithfulness"]
    for row, cached in zip(found["rows"], again["rows"], strict=True):
        assert cached["random"] == pytest.approx(row["random"], abs=1e-3)
        assert cached["most"] == pytest.approx(row["most"], abs=0.02)  # of like weights, the order


def test_nothing_to_explain_is_refused(runs, tmp_path, capsys):
    with pytest.raises(SystemExit):
        explain.main(["--run", str(runs["rgb"])])
    assert "name a VIDEO" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--run DIR and --checkpoint FILE"):
        explain.main(["x.mp4"])


@needs_videos
def test_real_videos_and_a_damaged_one(runs, tmp_path):
    clips = SHARED / "data" / "clips"
    videos = [clips / name for name in ("arm_wrestling.mp4", "flip_pancake.mkv", "corrupted.mp4")]
    checkpoint = ["--checkpoint", str(runs["rgb"] / BEST), "--output", str(tmp_path)]
    assert explain.main([*map(str, videos), *checkpoint]) == 0
    assert [entry["picture"] for entry in read(tmp_path)["videos"]] == [
        f"{video.stem}.png" for video in videos
    ]
