"""Maps in front of a stage: what is above learns as in the whole network whose rest is frozen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import two_stream_bert2
from engine.checkpoint import LAST
from engine.files import run_folder
from engine.tokens.cache import encoder_entries
from engine.tokens.dataset import freeze_encoder
from models import ArchError, create_model, get_arch
from scripts import cache_tokens
from scripts.eval import spatial_demo_bert

CUTS = [  # network, stage: every backbone that has stages, every reduction
    ("rgb_tiny3D16f_bert10", "block2"),
    ("rgb_tiny3D16f_bert10_FRMB", "block3"),
    ("rgb_tiny3D16f_bert10_FRAB", "block3"),
    ("rgb_tiny3D16f_FRMB_NLB_concatenation", "block3"),
    ("rgb_I3D64f_bert2", "Mixed_5b"),
    ("rgb_I3D64f_bert2_FRMB", "Mixed_5b"),
    ("flow_I3D64f_bert2_FRAB", "Mixed_5c"),
    ("rgb_resneXt3D64f101_bert10_FRMB", "layer4"),
    ("rgb_resneXt3D64f101_bert10_FRAB", "layer4"),
    ("rgb_r2plus1d_32f_34_bert10", "layer4"),
    ("rgb_r3d_16f_18_bert10", "layer4"),
    ("rgb_slowfast64f_50", "s5"),
    ("rgb_slowfast64f_50_bert10_FRAB_late", "s5"),
    ("rgb_slowfast64f_50_bert10_FRMB_early", "s5"),
]


def frozen_below(arch, stage):
    """A network that learns from the stage on, without dropout, in evaluation mode."""
    torch.manual_seed(0)
    model = create_model(arch, 3).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(1, *model.spec.clip_shape))  # numbers of usual size, as trained ones
    model.eval()
    model.ends_at = stage
    below = encoder_entries(model)
    model.ends_at = None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in below)
    return model, below


@pytest.mark.parametrize(("arch", "stage"), CUTS)
def test_logits_gradients_and_a_step_are_those_of_the_whole_network(arch, stage):
    whole, below = frozen_below(arch, stage)
    upper, _ = frozen_below(arch, stage)
    clips = torch.randn(1, *whole.spec.clip_shape)
    upper.ends_at = stage
    with torch.no_grad():
        maps = upper.encode(clips)
    upper.ends_at = None
    freeze_encoder(upper, stage)
    results = []
    for model, inputs in ((whole, clips), (upper, maps), (upper, maps.half().float())):
        logits = model(inputs)
        model.zero_grad()
        F.cross_entropy(logits, torch.tensor([1])).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert gradients and not gradients.keys() & below.keys()
        norm = torch.stack([g.norm() for g in gradients.values()])
        results.append((logits.detach().clone(), norm, gradients.keys()))
    (logits, norms, names), same, half = results
    assert same[2] == half[2] == names
    torch.testing.assert_close(same[0], logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same[1], norms, atol=1e-6, rtol=1e-4)
    # float16 rounds by 5e-4
    torch.testing.assert_close(half[0], logits, atol=1e-2, rtol=1e-2)
    total = norms.norm()
    assert (half[1] - norms).abs().max() < 2e-2 * total
    for model, inputs in ((whole, clips), (upper, maps)):
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4)
        model.zero_grad()
        F.cross_entropy(model(inputs), torch.tensor([1])).backward()
        optimizer.step()
    for (name, one), other in zip(whole.named_parameters(), upper.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=3e-4, rtol=1e-3, msg=name)


def test_a_stage_that_is_none_names_those_that_are():
    model = create_model("rgb_I3D64f", 2)
    model.ends_at = "layer4"
    with pytest.raises(ArchError, match="Mixed_5b, Mixed_5c"):
        model.encode(torch.zeros(1, *get_arch("rgb_I3D64f").clip_shape))


@pytest.mark.parametrize(("numbers", "rounding"), [("float16", 1e-2), ("bfloat16", 8e-2)])
def test_from_a_cache_of_maps_to_a_checkpoint_of_the_whole_network(
    tiny, tmp_path, capsys, numbers, rounding
):
    """FRMB, whose block no published file holds, learns from a cache of maps."""
    arch, cache = "rgb_tiny3D16f_bert10_FRMB", tmp_path / "cache"
    data = [*tiny.flags, "--workers", "0"]
    flags = [*data, "--cache", str(cache), "--at", "block3"]
    views = ["--views", "2", "--clips", "single", "--no-ten-crop", "--weights", "none"]
    views += ["--numbers", numbers]
    assert cache_tokens.main([*flags, *views, "--arch", "rgb_tiny3D16f"]) == 0
    said = capsys.readouterr().out
    assert "views of" in said and "MB" in said
    learn = ["--arch", arch, "-b", "4", "--iter-size", "1", "--epochs", "2", "--lr", "1e-3"]
    learn += ["--output", str(tmp_path / "runs"), "--weights", "none", "--seed", "0"]
    assert two_stream_bert2.main([*flags, *learn]) == 0
    folder = run_folder(tmp_path / "runs", tiny.name, arch, 1)
    content = torch.load(folder / LAST, weights_only=True)
    torch.manual_seed(0)
    before = create_model(arch, 3).state_dict()
    assert content["state_dict"].keys() == before.keys()
    assert content["flags"]["freeze_backbone"] is False
    # tested on clips, and from a cache of the same maps
    scores = []
    for where in (data, flags):
        path = tmp_path / f"{len(scores)}.npz"
        test = ["--no-ten-crop", "-a", arch, "--checkpoint", str(folder / LAST)]
        test += ["--results", str(tmp_path), "--scores", str(path)]
        assert spatial_demo_bert.main([*where, *test]) == 0
        scores.append(np.load(path)["score"])
    assert np.abs(scores[0] - scores[1]).max() < rounding * np.abs(scores[0]).max()
