"""I3D with its Kinetics weights on real videos: every way to compute it gives the same answer.

Needs ../shared/data, and `python scripts/weights.py get i3d-rgb-kinetics400`. With -s the
differences are printed. A CPU without bfloat16 units takes minutes for a clip in that type: there
its roundings are made in float32, of every layer's input, weight and output.
"""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.sources.videos import read_frames
from engine.data import normalization
from engine.files import ROOT
from engine.speed import Speed, fit
from engine.speed.presets import computes_bf16
from engine.speed.tuning import encode
from engine.weights.load import load_weights
from models import create_model
from models.rewriting import fold_batch_norms, stems_to_depth
from tests.conftest import SHARED, needs_videos
from video_transforms import CenterCrop

WEIGHTS = ROOT / "weights" / "i3d-rgb-kinetics400.pt"
VIDEOS = ("arm_wrestling.mp4", "bikes.mp4", "flip_pancake.mkv", "several_shots.mp4")
MARGIN = 0.05  # of probability between the two likeliest classes
PLAIN = Speed("exact", "off", channels_last=False, compile=False)
EXACT = Speed("exact", "off", channels_last=True, compile=False)
BF16 = Speed("fast", "bf16", channels_last=True, compile=False)
LIMITS = {"exact": 1e-5, "rewritten": 1e-4, "bf16": 1e-2}  # relative L2 norm of the difference


def first_clip(name: str, length: int, size: int) -> Tensor:
    """uint8 (1, T, H, W, 3): the central crop of a video's first frames."""
    frames = itertools.islice(read_frames(SHARED / "data/clips" / name, (340, 256)), length)
    clip = np.stack([frame[..., ::-1] for frame in frames])
    return torch.from_numpy(CenterCrop(size)(clip).copy())[None]


def round_to_bf16(model: nn.Module) -> None:
    """From now on the convolutions, products and norms see and give bfloat16 numbers."""

    def rounded(x: Tensor) -> Tensor:
        return x.bfloat16().float()

    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Linear | nn.BatchNorm3d):
            if not isinstance(module, nn.BatchNorm3d):
                module.weight.copy_(rounded(module.weight))
            module.register_forward_pre_hook(lambda _, inputs: tuple(map(rounded, inputs)))
            module.register_forward_hook(lambda _, __, output: rounded(output))


@needs_videos
@pytest.mark.skipif(not WEIGHTS.exists(), reason=f"needs {WEIGHTS.name} (scripts/weights.py get)")
@torch.no_grad()
def test_the_answer_stays():
    model = create_model("rgb_I3D64f", 400).eval()
    load_weights(model, WEIGHTS)
    views = torch.cat([first_clip(name, 64, model.spec.input.crop) for name in VIDEOS])

    def logits(speed: Speed) -> Tensor:
        inputs = normalization(model.spec, speed.channels_last)(views)
        return torch.cat([model.classify(encode(model, x, speed)) for x in inputs.split(2)])

    expected, found = logits(PLAIN), {}
    fit(model, EXACT)
    found["exact"] = logits(EXACT)
    if computes_bf16(torch.device("cpu")):
        found["bf16"] = logits(BF16)
    else:
        wide, model = model, copy.deepcopy(model)
        round_to_bf16(model)
        found["bf16"], model = logits(EXACT), wide
    assert fold_batch_norms(model, views[:2].permute(0, 4, 1, 2, 3)) > 50
    assert stems_to_depth(model, views.shape[1:4]) == 1
    found["rewritten"] = logits(EXACT)
    # compare
    likeliest = expected.softmax(1).topk(2).values
    clear = likeliest[:, 0] - likeliest[:, 1] > MARGIN
    assert clear.sum() >= 2
    for name, other in found.items():
        difference = float((other - expected).norm() / expected.norm())
        scores = (other.softmax(1) - expected.softmax(1)).abs().max()
        print(f"{name}: logits differ by {difference:.2e}, scores by at most {scores:.2e}")
        assert difference < LIMITS[name] and scores < 1e-2
        assert torch.equal(other.argmax(1)[clear], expected.argmax(1)[clear])
