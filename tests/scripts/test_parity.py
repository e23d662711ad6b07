"""The test scripts on real frames against the reference implementation's scores."""

import json

import numpy as np
import pytest
import torch

from engine.metrics import fuse
from scripts.eval import combined_demo, spatial_demo3D, spatial_demo_bert
from tests.conftest import FRAMES, filled_state_dict, golden, needs_frames

RGB, FLOW = "rgb_resneXt3D64f101_bert10_FRMB", "flow_resneXt3D64f101_bert10_FRMB"
VIDEOS = {"arm_wrestling": (150, 2), "flip_pancake": (40, 17)}  # frames, label
SCORES = golden("scores.json")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Lists of the two videos, and checkpoints as the reference writes them."""
    root = tmp_path_factory.mktemp("parity")
    lists = root / "settings" / "hmdb51"
    lists.mkdir(parents=True)
    for arch, less in ((RGB, 0), (FLOW, 1)):
        lines = [f"{folder} {n - less} {label}\n" for folder, (n, label) in VIDEOS.items()]
        (lists / f"val_{arch.split('_')[0]}_split1.txt").write_text("".join(lines))
        state_dict = {f"module.{k}": v for k, v in filled_state_dict(arch).items()}
        checkpoint = {"epoch": 3, "arch": arch, "state_dict": state_dict, "best_prec1": 50.0}
        torch.save(checkpoint, root / f"{arch}.pth.tar")
    return root


def data_flags(root) -> list[str]:
    return [
        *("--settings", str(root / "settings")),
        *("--frames", str(FRAMES)),
        *("--results", str(root / "results")),
        *("--workers", "1"),
    ]


def golden_scores(arch: str, clips: str, crops: str) -> np.ndarray:
    return np.array([SCORES[arch][video][f"{clips}_clip/{crops}_crop"] for video in VIDEOS])


def check(root, scores_file, expected, summary_name) -> None:
    with np.load(scores_file, allow_pickle=False) as data:
        assert data["video"].tolist() == list(VIDEOS)
        assert data["label"].tolist() == [label for _, label in VIDEOS.values()]
        assert data["score"].dtype == np.float32
        assert len(data["classes"]) == 51
        np.testing.assert_allclose(data["score"], expected, atol=1e-3, rtol=0)
        print("largest difference", np.abs(data["score"] - expected).max())
    summary = json.loads((root / "results" / f"{summary_name}.json").read_text())
    hits = expected.argmax(axis=1) == [label for _, label in VIDEOS.values()]
    assert summary["top1"] == pytest.approx(100 * hits.mean())


@needs_frames
@pytest.mark.parametrize("crops", ["one", "ten"])
@pytest.mark.parametrize("script", [spatial_demo3D, spatial_demo_bert])
@pytest.mark.parametrize("arch", [RGB, FLOW])
def test_scores_agree(setup, arch, script, crops):
    clips = "multi" if script is spatial_demo3D else "single"
    flags = [*data_flags(setup), "--arch", arch, "--checkpoint", str(setup / f"{arch}.pth.tar")]
    scores = setup / f"{arch}_{clips}_{crops}.npz"
    crop_flag = "--ten-crop" if crops == "ten" else "--no-ten-crop"
    assert script.main([*flags, "--scores", str(scores), crop_flag]) == 0
    name = f"hmdb51_{arch}_split1_{clips}_clip_{crops}_crop"
    check(setup, scores, golden_scores(arch, clips, crops), name)


@needs_frames
def test_fused_scores_agree(setup):
    scores = setup / "fused.npz"
    flags = [*data_flags(setup), "-b", RGB, "-a", FLOW, "--scores", str(scores), "--single-clip"]
    flags += ["--checkpoint_rgb", str(setup / f"{RGB}.pth.tar"), "--no-ten-crop"]
    assert combined_demo.main([*flags, "--checkpoint_flow", str(setup / f"{FLOW}.pth.tar")]) == 0
    expected = fuse([golden_scores(arch, "single", "one") for arch in (RGB, FLOW)])
    norms = np.linalg.norm(golden_scores(RGB, "single", "one"), axis=1)
    assert not np.allclose(norms, 1)  # the normalisation matters
    name = f"hmdb51_{RGB}+{FLOW}_split1_single_clip_one_crop"
    check(setup, scores, expected, name)
