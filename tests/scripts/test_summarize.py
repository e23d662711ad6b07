"""summarize.py on files that the test scripts wrote, and on files made for a known answer."""

import json

import numpy as np
import pytest

import two_stream_bert2
from datasets import DataError
from engine import UsageError
from engine.metrics import fuse
from scripts import summarize
from scripts.eval import spatial_demo3D
from tests.conftest import ROOT, TinyDataset, run_script

RGB, FLOW = "rgb_tiny3D16f_bert10_FRMB", "flow_tiny3D16f_bert10_FRMB"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Files of both modalities on two splits, and of held-out videos, as the scripts write them."""
    root = tmp_path_factory.mktemp("summary")
    toy = TinyDataset(root)
    part = {"train": (17, 20), "one": (36, 54, 2), "two": (37, 18), "held": (40, 19)}
    videos = {
        name: [
            (f"{name}/{label}_{i}", n, label) for label in range(3) for i, n in enumerate(counts)
        ]
        for name, counts in part.items()
    }
    for video in sum(videos.values(), []):
        toy.add_video(video[0], video[2], video[1])
    for split, name in ((1, "one"), (2, "two")):
        toy.write_lists("train", videos["train"], split)
        toy.write_lists("val", videos[name], split)
    held = TinyDataset(root / "held")
    held.frames = toy.frames
    held.write_lists("val", videos["held"])
    for dataset in (toy, held):
        (dataset.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    runs = root / "runs"
    for arch in (RGB, FLOW):
        flags = [*toy.flags, "--arch", arch, "--output", str(runs), "--workers", "0", "-b", "3"]
        two_stream_bert2.main([*flags, "--epochs", "2", "--lr", "1e-3", "--iter-size", "1"])
        test = ["--arch", arch, "--runs", str(runs), "--workers", "0", "--no-ten-crop"]
        checkpoint = ["--checkpoint", str(runs / f"toy_{arch}_split1" / "model_best.pth.tar")]
        for split in (1, 2):
            where = ["-s", str(split), "--results", str(root / "results"), *checkpoint]
            spatial_demo3D.main([*toy.flags, *test, *where])
        spatial_demo3D.main([*held.flags, *test, "--results", str(root / "held")])
    return root


def files(results, folder="results", split="") -> list[str]:
    found = (results / folder).glob(f"*split{split}*.npz")
    return sorted((str(path) for path in found), key=lambda name: (FLOW in name, name))


def read(path) -> dict:
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def test_clips_are_stored_and_make_the_video(results):
    data = read(files(results, split=1)[0])
    assert np.bincount(data["clip_video"]).tolist() == [2, 3, 1] * 3
    assert data["clip_score"].dtype == np.float32
    for place, score in enumerate(data["score"]):
        clips = data["clip_score"][data["clip_video"] == place]
        np.testing.assert_allclose(clips.mean(axis=0), score, atol=1e-5)


def test_runs_over_splits(results, tmp_path, capsys):
    out, picture = tmp_path / "deep" / "summary.json", tmp_path / "deep" / "summary.png"
    given = files(results)
    assert summarize.main([*given, "--json", str(out), "--plot", str(picture)]) == 0
    summary = json.loads(out.read_text())
    rgb, flow = summary["runs"]
    assert RGB in rgb["name"] and FLOW in flow["name"]
    for run in (rgb, flow):
        for split in run["splits"]:
            written = json.loads(open(split["file"].replace(".npz", ".json")).read())
            for metric in ("top1", "top3", "mean_class_accuracy"):
                assert split[metric]["value"] == written[metric]
            data = read(split["file"])
            right = data["clip_score"].argmax(1) == data["label"][data["clip_video"]]
            assert split["clip_top1"]["value"] == pytest.approx(100 * right.mean(), abs=1e-3)
            low, high = split["top1"]["interval"]
            assert low <= split["top1"]["value"] <= high
        values = [split["top1"]["value"] for split in run["splits"]]
        over = run["over_splits"]["top1"]
        assert over["value"] == pytest.approx(np.mean(values), abs=1e-3)
        assert over["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-3)
        assert run["videos_in_several_splits"] == 0
    assert [row["split"] for row in summary["mcnemar"]] == [1, 2, "all"]
    hits = [read(path) for path in given]
    hits = [data["score"].argmax(1) == data["label"] for data in hits]
    only = sum(int((a & ~b).sum()) for a, b in zip(hits[:2], hits[2:], strict=True))
    assert summary["mcnemar"][2]["only_first"] == only
    assert picture.stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "clip top-1 [95 %]" in printed and "A and B" in printed and "mean" in printed


def test_weights_are_searched_on_held_out_videos(results, tmp_path, capsys):
    tests, held_out = files(results, split=1), files(results, "held")
    out = tmp_path / "s.json"
    summarize.main([*tests, "--search", *held_out, "--json", str(out)])
    summary = json.loads(out.read_text())
    weights = summary["fusion"]["weights"]["1"]
    fused = fuse([read(path)["score"] for path in tests], weights)
    data = read(tests[0])
    top1 = 100 * np.mean(fused.argmax(1) == data["label"])
    assert summary["runs"][2]["splits"][0]["top1"]["value"] == pytest.approx(top1, abs=1e-3)
    assert summary["fusion"]["held_out"]["1"]["videos"] == 6
    assert "found on 6 held-out videos" in capsys.readouterr().out
    with pytest.raises(DataError, match="9 of 9 held-out videos .* are test videos"):
        summarize.main([*tests, "--search", *tests])
    with pytest.raises(DataError, match="in the order of the score files"):
        summarize.main([*tests, "--search", *held_out[::-1]])
    with pytest.raises(UsageError, match="1 held-out files for 2 score files"):
        summarize.main([*tests, "--search", held_out[0]])


def write(path, hits, classes=2):
    """A file without a JSON: a video of class i % classes, called right or wrong."""
    labels = np.arange(len(hits)) % classes
    called = np.where(hits, labels, (labels + 1) % classes)
    names = np.array([f"v{i}" for i in range(len(hits))])
    scores = np.eye(classes, dtype=np.float32)[called]
    np.savez(path, video=names, label=labels, score=scores, classes=np.arange(classes).astype(str))
    return str(path)


def test_a_known_answer(tmp_path, capsys):
    """The first stream knows class 0, the second class 1; twice its weight lets the second win."""
    even = np.arange(20) % 2 == 0
    out = tmp_path / "s.json"
    pair = [write(tmp_path / "a.npz", even), write(tmp_path / "b.npz", ~even)]
    summarize.main([*pair, "--fusion-weights", "1", "2", "--json", str(out)])
    summary = json.loads(out.read_text())
    assert [run["splits"][0]["top1"]["value"] for run in summary["runs"]] == [50, 50, 50]
    gains = {row["class"]: row["gain"] for row in summary["fusion"]["classes"]}
    assert gains == {"0": -100, "1": 100}
    first = summary["mcnemar"][0]
    assert (first["only_first"], first["only_second"], first["p"]) == (10, 10, 1)
    assert [row["p"] for row in summary["mcnemar"][1:]] == [1, 1]
    printed = capsys.readouterr().out
    assert "clip top-1" not in printed and "fused 1 : 2" in printed
    assert ["1", "10", "0.00", "100.00", "100.00", "+100.00"] in map(
        str.split, printed.splitlines()
    )


def test_all_right_gets_an_exact_interval_and_other_lists_are_named(tmp_path, capsys):
    out = tmp_path / "s.json"
    a = write(tmp_path / "a.npz", np.ones(20, bool))
    b = write(tmp_path / "b.npz", np.ones(19, bool))
    summarize.main([a, b, "--json", str(out)])
    summary = json.loads(out.read_text())
    exact = summary["runs"][0]["splits"][0]["top1"]["exact"]
    assert exact == pytest.approx([100 * 0.025 ** (1 / 20), 100], abs=1e-3)
    assert summary["mcnemar"] == []
    printed = capsys.readouterr().out
    assert "exact interval of top-1 [83.16, 100.00]" in printed
    assert "not compared: 1 videos are in" in printed and "v19" in printed


def test_videos_in_several_splits_are_told(tmp_path, capsys):
    pair = [write(tmp_path / f"a_split{k}.npz", np.arange(10) < 5) for k in (1, 2)]
    summarize.main(pair)
    assert "10 videos are tested in several splits" in capsys.readouterr().out


def test_many_classes_are_cut_short(tmp_path, capsys):
    pair = [write(tmp_path / f"{k}.npz", np.arange(60) % 20 < 4 * k, 20) for k in (1, 2)]
    summarize.main([*pair, "--fusion-weights", "1", "1", "--plot", str(tmp_path / "s.png")])
    table = capsys.readouterr().out.rpartition("class   ")[2].splitlines()[1:]
    assert len(table) == 13 and table[6] == "..."


def test_flags_that_do_not_fit_are_refused(tmp_path, capsys):
    a, b = (write(tmp_path / f"{name}.npz", np.arange(6) < 3) for name in "ab")
    for flags, message in (
        ([a, "--fusion-weights", "1"], "fusion needs two runs or more"),
        ([a, b, "--fusion-weights", "1"], "1 weights for 2 runs; give one for each.*a; b"),
        ([a, b, "--fusion-weights", "0", "0"], "not all 0"),
    ):
        with pytest.raises(UsageError, match=message):
            summarize.main(flags)
    (tmp_path / "a.json").write_text("{}")
    for flags in (
        ["--plot", str(tmp_path / "x.pdf")],
        ["--json", str(tmp_path / "a.json")],
        ["--plot", str(tmp_path / "a.png")],
        ["--fusion-weights", "1", "-1"],
        ["--fusion-weights", "1", "1", "--search", a, b],
    ):
        with pytest.raises(SystemExit, match="2"):
            summarize.main([a, b, *flags])
    assert (tmp_path / "a.json").read_text() == "{}"


def test_a_broken_file_is_one_readable_line(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 broken")
    process = run_script("scripts/summarize.py", tmp_path / "x.npz", cwd=ROOT, check=False)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert process.stderr.startswith("error: ") and "not a readable score file" in process.stderr
