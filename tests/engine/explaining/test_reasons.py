"""Attention, occlusion and Grad-CAM find what constructed networks depend on, by known numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from engine import UsageError
from engine.explaining.reasons import (
    Explanation,
    class_attention,
    explain_clip,
    grad_cam,
    log_odds,
    occlude_spans,
)
from models import ArchError, create_model

SPANS = np.stack([np.arange(0, 16, 2), np.arange(2, 18, 2)], axis=1)


class RedMaps(nn.Module):
    """A "backbone": channel 0 of its maps is the mean red of each block of 2 x 14 x 14 pixels."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        maps = torch.zeros(len(clips), 128, 8, 4, 4)
        maps[:, :1] = nn.functional.avg_pool3d(clips[:, :1], (2, 14, 14))
        return maps


def red_network(weight: float = 8.0) -> nn.Module:
    """The logit of class 1 is `weight` times the clip's mean red; classes 0 and 2 have 0."""
    model = create_model("rgb_tiny3D16f", 3).eval()
    model.features = RedMaps()
    with torch.no_grad():
        model.fc_action.weight.zero_()
        model.fc_action.weight[1, 0] = weight
        model.fc_action.bias.copy_(torch.tensor([0.0, 0.5, 0.0]))
    return model


def red_clip(frames: slice, rows: slice, columns: slice) -> torch.Tensor:
    clip = torch.zeros(1, 3, 16, 56, 56)
    clip[:, 0, frames, rows, columns] = 4
    return clip


def test_log_odds_are_those_of_the_softmax():
    logits = torch.tensor([[1.0, -2.0, 0.5], [9.0, 0.0, 0.0]])
    p = logits.double().softmax(1)[:, 0]
    torch.testing.assert_close(log_odds(logits.double(), 0), torch.log(p / (1 - p)))
    saturated = log_odds(torch.tensor([[120.0, 0.0], [60.0, 0.0]]), 0)  # both probabilities: 1
    assert saturated.tolist() == [120, 60]


def test_occlusion_finds_the_span_that_decides_with_the_cost_that_the_formula_says():
    clip = red_clip(slice(6, 8), slice(0, 28), slice(0, 56))
    lost = occlude_spans(red_network(), clip, 1, SPANS)
    # mean red 4 / 8 / 2 = 0.25; its frames become the mean frame: 1 / 8 of that stays
    expected = np.full(8, -8 * 0.25 / 8)  # elsewhere the mean frame adds an eighth
    expected[3] = 8 * 0.25 * 7 / 8
    np.testing.assert_allclose(lost, expected, rtol=1e-5)
    assert clip[0, 0, 6, 0, 0] == 4  # the clip itself is as it was


def test_grad_cam_lights_the_place_and_time_that_decide():
    clip = red_clip(slice(6, 8), slice(14, 28), slice(42, 56))
    cam = grad_cam(red_network(), clip, 1)
    assert cam.shape == (16, 56, 56) and cam.min() == 0
    time, row, column = np.unravel_index(cam.argmax(), cam.shape)
    assert time in (6, 7) and 14 <= row < 28 and 42 <= column < 56
    far = cam.copy()
    far[4:10, 7:35, 35:56] = 0
    assert far.max() == 0
    # the mean is the logit without its bias
    assert cam.mean() == pytest.approx(8 * clip[:, 0].mean().item(), rel=1e-5)
    # a class that red speaks against, and one that does not care
    assert grad_cam(red_network(-8.0), clip, 1).max() == 0
    assert grad_cam(red_network(), clip, 2).max() == 0


@pytest.mark.parametrize("arch", ["rgb_slowfast64f_50", "rgb_tiny3D16f", "flow_tiny3D16f"])
def test_the_maps_of_networks_that_average_add_up_to_the_logit(arch):
    torch.manual_seed(0)
    model = create_model(arch, 4).eval()
    clip = torch.randn(1, *model.spec.clip_shape)
    with torch.no_grad():
        model.fc_action.bias.copy_(torch.arange(4.0))
        model.fc_action.weight.abs_()  # maps are >= 0: nothing is cut off
        logits = model(clip)[0]
    cam = grad_cam(model, clip, 2)
    assert cam.shape == model.spec.clip_shape[1:]
    assert cam.mean() == pytest.approx(logits[2].item() - 2, rel=1e-3)


HEADS = {
    "rgb_tiny3D16f": "no BERT head",
    "rgb_tiny3D16f_FRMB_lstm": "no BERT head",
    "rgb_tiny3D16f_concatenation": "no BERT head",
    "rgb_tiny3D16f_flat_FRAB": "no BERT head",
    "rgb_tiny3D16f_FRMB_NLB_concatenation": "no BERT head",
    "rgb_tiny3D16f_bert10_noclass_FRMB": "no class token",
    "rgb_tiny3D16f_bert10_FRMB": "",
    "rgb_tiny3D16f_bert2_FRAB": "",
    "flow_tiny3D16f_bert10_2layers_FRMB": "",
    "flow_tiny3D16f_bert10_1head_FRMB": "",
}


@pytest.mark.parametrize("arch", HEADS)
def test_every_head_is_explained_and_one_without_class_token_says_so(arch):
    torch.manual_seed(0)
    model = create_model(arch, 5).eval()
    clip = torch.randn(1, *model.spec.clip_shape)
    found = explain_clip(model, clip)
    assert isinstance(found, Explanation)
    with torch.no_grad():
        probabilities = model(clip).softmax(1)[0].numpy()
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-5)
    assert found.target == probabilities.argmax() and found.probability == probabilities.max()
    assert found.spans.tolist() == SPANS.tolist() and found.lost.shape == (8,)
    assert np.isfinite(found.lost).all() and np.abs(found.lost).max() > 0
    assert found.gradcam.shape == (16, 56, 56) and np.isfinite(found.gradcam).all()
    if HEADS[arch]:
        assert HEADS[arch] in found.no_attention and not found.attention
        return
    weights = model.attention(clip)[0, :, 0, 1:].numpy()
    assert not found.no_attention and found.attention.keys() == {""}
    np.testing.assert_array_equal(found.attention[""], weights)
    assert weights.shape == (model.spec.heads, 8)
    assert explain_clip(model, clip, target=3).target == 3


def test_two_class_tokens_have_an_attention_each():
    model = create_model("rgb_slowfast64f_50_bert10_FRMB_late", 3).eval()
    tokens = {"slow": torch.randn(2, 8, 512), "fast": torch.randn(2, 32, 256)}
    with torch.no_grad():
        found = class_attention(model, tokens)
        weights = model.token_attention(tokens)
    assert {path: own.shape for path, own in found.items()} == {
        "slow": (2, 8, 8),
        "fast": (2, 8, 32),
    }
    for path, own in found.items():
        torch.testing.assert_close(own.sum(2), 1 - weights[path][:, :, 0, 0])


def test_what_cannot_be_explained_is_refused():
    model = create_model("rgb_tiny3D16f", 1).eval()
    with pytest.raises(UsageError, match="a single class"):
        explain_clip(model, torch.zeros(1, 3, 16, 56, 56))
    model = red_network(float("nan"))
    with pytest.raises(UsageError, match="not finite"):
        explain_clip(model, torch.zeros(1, 3, 16, 56, 56))
    with pytest.raises(ArchError, match="takes clips"):
        other = create_model("rgb_tiny3D16f", 3).eval()
        explain_clip(other, torch.zeros(1, 3, 8, 56, 56))
