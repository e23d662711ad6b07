"""Layers in other shapes give the same sums; and channels stay last from the clip to the head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.speed import Speed, fit
from models import create_model
from models.backbones.i3d import MaxPoolSame, SameConv3d, same_pads
from models.rewriting import SpaceToDepthConv, fold_batch_norms, merge_groups, stems_to_depth

ARCHS = [  # a family each, short clips
    "rgb_tiny3D16f_bert10",
    "rgb_resneXt3D16f101_bert10_FRMB",
    "rgb_r2plus1d_8f_34_bert10",
    "flow_I3D16f_bert2",
    "rgb_slowfast64f_50_bert10_FRAB_late",
]
EXACT = Speed("exact", "off", channels_last=True, compile=False)


def network(arch: str):
    """A network whose batch norms are not the identity, and a clip."""
    torch.manual_seed(0)
    model = create_model(arch, 5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    channels, *size = model.spec.clip_shape
    clip = torch.randn(1, *size, channels).permute(0, 4, 1, 2, 3)
    return model, clip


def difference(found, expected) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_a_rewritten_network_gives_the_same(arch):
    model, clip = network(arch)
    expected = model.encode(clip.contiguous())
    assert difference(fit(model, EXACT).encode(clip), expected) < 1e-5
    parts = [model.get_submodule(name) for name in model.encoder_parts()]
    norms = sum(isinstance(m, nn.BatchNorm3d) for part in parts for m in part.modules())
    assert fold_batch_norms(model, clip) == norms > 0
    assert not any(isinstance(m, nn.BatchNorm3d) for part in parts for m in part.modules())
    assert difference(model.encode(clip), expected) < 1e-5
    # Tiny3D's stem pads by repeating the border, so it stays.
    stems = {"rgb_tiny3D16f_bert10": 0, "rgb_slowfast64f_50_bert10_FRAB_late": 2}.get(arch, 1)
    assert stems_to_depth(model, clip.shape[2:]) == stems
    assert difference(model.encode(clip), expected) < 1e-5
    merged = [merge_groups(model, width) for width in (16, 32)]
    assert all(merged) if "resneXt" in arch else not any(merged)
    assert difference(model.encode(clip), expected) < 1e-5


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_channels_stay_last(arch):
    """For two clips and more; for one alone torch's convolutions give their usual layout."""
    model, clip = network(arch)
    fit(model, EXACT)
    wrong, seen = [], []

    def look(module, _, output):
        for tensor in output if isinstance(output, tuple) else [output]:
            if tensor.dim() == 5:
                seen.append(tensor.shape)
                if not tensor.is_contiguous(memory_format=torch.channels_last_3d):
                    wrong.append(type(module).__name__)

    for name in model.encoder_parts():
        for module in model.get_submodule(name).modules():
            module.register_forward_hook(look)
    model.encode(torch.cat([clip, clip]))
    assert len(seen) > 10 and not wrong


@pytest.mark.parametrize("kernel", [(7, 7, 7), (1, 7, 7), (5, 7, 7), (3, 3, 4), (2, 5, 6)])
@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("padding", [(0, 0, 0), (1, 2, 3), (3, 3, 3)])
def test_space_to_depth_is_the_convolution(kernel, stride, padding):
    conv = nn.Conv3d(3, 6, kernel, stride, padding).double()
    x = torch.randn(2, 3, 8, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(SpaceToDepthConv(conv, x.shape[2:])(x), conv(x))


def test_space_to_depth_is_the_convolution_with_same_padding():
    conv = SameConv3d(3, 6, 7, 2).double()
    x = torch.randn(2, 3, 8, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(SpaceToDepthConv(conv, x.shape[2:])(x), conv(x))


@pytest.mark.parametrize(("channels", "groups", "width"), [(32, 8, 16), (64, 16, 32), (12, 4, 6)])
def test_merged_groups_are_the_convolution(channels, groups, width):
    model = nn.Sequential(nn.Conv3d(channels, 2 * channels, 3, padding=1, groups=groups).double())
    x = torch.randn(1, channels, 3, 4, 5, dtype=torch.float64)
    expected = model(x)
    assert merge_groups(model, width) == 1
    assert model[0].groups == channels // width
    torch.testing.assert_close(model(x), expected)
    assert merge_groups(model, width) == 0


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3,) * 3, (1,) * 3)],
)
@pytest.mark.parametrize("size", [(4, 6, 7), (5, 8, 9), (1, 3, 2)])
def test_a_pool_needs_no_padding_with_zeros(kernel, stride, size):
    x = torch.rand(2, 3, *size)
    pads = [pad for pair in reversed(same_pads(size, kernel, stride)) for pad in pair]
    expected = F.max_pool3d(F.pad(x, pads), kernel, stride)
    assert torch.equal(MaxPoolSame(kernel, stride)(x), expected)
    assert expected.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
