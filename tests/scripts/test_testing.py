"""The three test scripts as a user runs them, on a dataset of a few tiny videos."""

import json

import numpy as np
import pytest
import torch

import two_stream_bert2
from datasets import DataError
from engine import UsageError
from engine.files import CheckpointError
from engine.metrics import fuse
from scripts.eval import combined_demo, spatial_demo3D, spatial_demo_bert
from tests.conftest import TinyDataset, run_script

RGB, FLOW = "rgb_tiny3D16f_bert10_FRMB", "flow_tiny3D16f_bert10_FRMB"


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Networks of both modalities, trained for a step."""
    output = tmp_path_factory.mktemp("runs")
    for arch in (RGB, FLOW):
        flags = ["--arch", arch, "--output", str(output), "--max-steps", "1", "--workers", "0"]
        two_stream_bert2.main([*tiny.flags, *flags, "-b", "4", "--iter-size", "1"])
    return output


def flags_for(tiny, runs, tmp_path) -> list[str]:
    return [
        *tiny.flags,
        *("--runs", str(runs)),
        *("--results", str(tmp_path / "results")),
        *("--workers", "0"),
    ]


def read(path) -> dict:
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def test_results_of_a_test(tiny, runs, tmp_path, capsys):
    scores = tmp_path / "deep" / "scores.npz"
    flags = [*flags_for(tiny, runs, tmp_path), "--arch", RGB, "--scores", str(scores)]
    assert spatial_demo3D.main(flags) == 0
    data = read(scores)
    assert data["video"].dtype.kind == "U" and data["video"][0] == "val (#0) [0]"
    assert data["label"].dtype == np.int64 and data["label"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert data["score"].dtype == np.float32 and data["score"].shape == (9, 3)
    assert data["classes"].tolist() == ["left", "middle", "right"]
    stem = tmp_path / "results" / f"toy_{RGB}_split1_multi_clip_ten_crop"
    summary = json.loads(stem.with_suffix(".json").read_text())
    assert summary["videos"] == 9 and summary["crops"] == 10 and summary["clips"] == "multi"
    hits = data["score"].argmax(1) == data["label"]
    assert summary["top1"] == pytest.approx(100 * hits.mean(), abs=1e-3)
    assert stem.with_suffix(".png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "mean class accuracy" in printed and "s each" in printed
    table = [line.split() for line in printed.splitlines() if line[:2] in (" 0", " 1", " 2")]
    assert [row[1] for row in table[-3:]] == ["left", "middle", "right"]
    assert sum(int(cell) for row in table[-3:] for cell in row[2:]) == 9


def test_scripts_run_from_their_folder_and_name_a_bad_checkpoint(tiny, runs, tmp_path):
    flags = [*flags_for(tiny, runs, tmp_path), "--arch", FLOW]
    cwd = spatial_demo_bert.__file__.rsplit("/", 1)[0]
    assert "top-1" in run_script("scripts/eval/spatial_demo_bert.py", *flags, cwd=cwd).stdout
    process = run_script("scripts/eval/spatial_demo3D.py", *tiny.flags, "-a", RGB, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("error: no checkpoint") and "Traceback" not in process.stderr


def test_multi_and_single_clip_differ_only_for_long_videos(tiny, runs, tmp_path):
    flags = [*flags_for(tiny, runs, tmp_path), "--arch", RGB, "--no-ten-crop", "--scores"]
    spatial_demo3D.main([*flags, str(tmp_path / "multi.npz")])
    spatial_demo_bert.main([*flags, str(tmp_path / "single.npz")])
    multi, single = (read(tmp_path / f"{name}.npz")["score"] for name in ("multi", "single"))
    equal = [np.allclose(a, b, atol=1e-5) for a, b in zip(multi, single, strict=True)]
    assert equal == [False, True, True] * 3  # 36, 17 and 2 frames


def test_batch_size_and_workers_change_nothing(tiny, runs, tmp_path):
    flags = [*flags_for(tiny, runs, tmp_path), "--arch", RGB, "--scores"]
    spatial_demo3D.main([*flags, str(tmp_path / "a.npz")])
    spatial_demo3D.main([*flags, str(tmp_path / "b.npz"), "--batch-size", "7", "--workers", "2"])
    a, b = read(tmp_path / "a.npz")["score"], read(tmp_path / "b.npz")["score"]
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_fusion(tiny, runs, tmp_path, capsys):
    flags = [*flags_for(tiny, runs, tmp_path), "--scores"]
    combined = [*flags, str(tmp_path / "fused.npz"), "-b", RGB, "-a", FLOW]
    assert combined_demo.main([*combined, "--single-clip"]) == 0
    printed = capsys.readouterr().out
    for arch in (RGB, FLOW):
        assert f"{arch}: top-1" in printed
        spatial_demo_bert.main([*flags, str(tmp_path / f"{arch}.npz"), "--arch", arch])
    assert "fused: top-1" in printed
    streams = [read(tmp_path / f"{arch}.npz")["score"] for arch in (RGB, FLOW)]
    np.testing.assert_allclose(read(tmp_path / "fused.npz")["score"], fuse(streams), atol=1e-5)
    (summary,) = (tmp_path / "results").glob(f"*{RGB}+{FLOW}*.json")
    assert json.loads(summary.read_text())["streams"].keys() == {RGB, FLOW}


def test_html_writes_a_report_beside_the_results(tiny, runs, tmp_path, capsys):
    flags = [*flags_for(tiny, runs, tmp_path), "--html"]
    combined_demo.main([*flags, "-b", RGB, "-a", FLOW, "--scores", str(tmp_path / "other.npz")])
    spatial_demo_bert.main([*flags, "--arch", RGB, "--no-ten-crop"])
    printed = capsys.readouterr().out
    names = (f"{RGB}+{FLOW}_split1_multi_clip_ten_crop", f"{RGB}_split1_single_clip_one_crop")
    for name, tests in zip(names, (3, 1), strict=True):
        output = tmp_path / "results" / f"toy_{name}.html"
        assert f"report: {output}\n" in printed
        page = output.read_text()
        assert page.count('role="tab"') == tests and page.count("image/webp") == 9
        assert page.count("<figure") == 2 * min(tests, 2)  # loss and top-1 of each training
        assert "rgb, trained on" in page and "PyTorch" in page


def test_mirroring_follows_the_checkpoint(tiny, runs, tmp_path):
    """Files without a record, like the reference's, mirror flow plainly."""
    content = torch.load(runs / f"toy_{FLOW}_split1/model_best.pth.tar", weights_only=True)
    scores = {}
    for rule in ("inverted", "plain", "none", None):
        changed = content | {"mirror": rule}
        if rule is None:
            del changed["mirror"]
        torch.save(changed, tmp_path / "model.pth.tar")
        flags = [*flags_for(tiny, runs, tmp_path), "--arch", FLOW]
        flags += ["--checkpoint", str(tmp_path / "model.pth.tar")]
        spatial_demo_bert.main([*flags, "--scores", str(tmp_path / "s.npz")])
        scores[rule] = read(tmp_path / "s.npz")["score"]
    assert np.array_equal(scores["plain"], scores[None])
    assert not np.allclose(scores["plain"], scores["inverted"])
    assert not np.allclose(scores["plain"], scores["none"])
    summary = f"toy_{FLOW}_split1_single_clip_ten_crop.json"
    assert json.loads((tmp_path / "results" / summary).read_text())["crops"] == 10


def test_another_split_is_warned_of(tiny, runs, tmp_path, capsys):
    content = torch.load(runs / f"toy_{RGB}_split1/model_best.pth.tar", weights_only=True)
    torch.save(content | {"split": 2}, tmp_path / "model.pth.tar")
    flags = [*flags_for(tiny, runs, tmp_path), "--arch", RGB]
    spatial_demo_bert.main([*flags, "--checkpoint", str(tmp_path / "model.pth.tar")])
    assert "trained on split 2 and is tested on split 1" in capsys.readouterr().out


def test_a_video_of_one_frame(runs, tmp_path):
    toy = TinyDataset(tmp_path)
    toy.add_video("v", 1, 1)
    toy.write_lists("val", [("v", 1, 1)])
    (toy.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    for script in (spatial_demo3D, spatial_demo_bert):
        assert script.main([*flags_for(toy, runs, tmp_path), "--arch", RGB]) == 0


def test_swapped_streams_are_refused(tiny, runs, tmp_path):
    with pytest.raises(UsageError, match="--arch_rgb flow_.* is no rgb network"):
        combined_demo.main([*flags_for(tiny, runs, tmp_path), "-b", FLOW, "-a", RGB])


def test_lists_that_disagree_are_refused(tiny, runs, tmp_path):
    toy = TinyDataset(tmp_path)
    for label in range(3):
        toy.add_video(f"v{label}", label, 20)
    (toy.lists).mkdir(parents=True)
    (toy.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    (toy.lists / "val_rgb_split1.txt").write_text("v0 20 0\nv1 20 1\n")
    flags = [*flags_for(toy, runs, tmp_path), "-b", RGB, "-a", FLOW]
    for flow, message in (
        ("v0 19 0\nv2 19 2\n", "1 videos are in the RGB list and not in the flow list: v1"),
        ("v0 19 0\nv1 19 1\nv2 19 2\n", "in the flow list and not in the RGB list: v2"),
        ("v0 19 0\nv1 19 2\n", "'v1' has label 1 in .*rgb.*:2 and 2 in .*flow.*:2"),
        ("v0 19 0\nv1 19 1\nv1 19 1\n", "is listed already"),
    ):
        (toy.lists / "val_flow_split1.txt").write_text(flow)
        with pytest.raises(DataError, match=message):
            combined_demo.main(flags)
    (toy.lists / "val_flow_split1.txt").write_text("v1 19 1\nv0 20 0\n")  # another order
    assert combined_demo.main(flags) == 0


def test_a_checkpoint_of_other_classes_is_refused(tiny, runs, tmp_path):
    toy = TinyDataset(tmp_path)
    toy.add_video("v", 0, 20)
    toy.write_lists("val", [("v", 20, 0)])
    (toy.lists / "classes.txt").write_text("middle\nleft\nright\n")
    with pytest.raises(CheckpointError, match="'left' in the file, 'middle' in the dataset"):
        spatial_demo3D.main([*flags_for(toy, runs, tmp_path), "--arch", RGB])


def test_a_video_that_cannot_be_read_is_listed_and_counts_as_wrong(runs, tmp_path, capsys):
    toy = TinyDataset(tmp_path)
    for label in range(3):
        toy.add_video(f"v{label}", label, 20)
    toy.write_lists("val", [(f"v{label}", 20, label) for label in range(3)])
    (toy.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    path = toy.frames / "v1" / "img_00009.jpg"
    path.write_bytes(path.read_bytes()[:200])
    scores = tmp_path / "scores.npz"
    flags = [*flags_for(toy, runs, tmp_path), "--scores", str(scores)]
    for workers in ("0", "1"):
        code = combined_demo.main([*flags, "-b", RGB, "-a", FLOW, "--workers", workers])
        assert code == 1
        assert "not scored, counts as wrong" in capsys.readouterr().out
    data = read(scores)
    assert np.isnan(data["score"]).all(axis=1).tolist() == [False, True, False]
    (summary,) = (tmp_path / "results").glob("*.json")
    summary = json.loads(summary.read_text())
    hits = data["score"][[0, 2]].argmax(1) == data["label"][[0, 2]]
    assert summary["videos"] == 3
    assert summary["top1"] == pytest.approx(100 * hits.sum() / 3, abs=1e-3)
    assert "truncated" in summary["streams"][RGB]["unscored"]["v1"]
    assert summary["streams"][FLOW]["unscored"] == {}
