"""torchvision's networks: the same weights give torchvision's own logits, for RGB and flow."""

import pytest
import torch
import torchvision.models.video as video
from torch import nn
from torchvision.models import get_model_weights

from engine.weights.load import load_pretrained
from models import create_model, get_arch
from models.backbones import BACKBONES

# Architecture, torchvision's builder, and a small picture that the builder takes.
NETWORKS = [
    ("rgb_r2plus1d_16f_18", video.r2plus1d_18, 32),
    ("rgb_r3d_16f_18", video.r3d_18, 32),
    ("rgb_s3d16f", video.s3d, 224),
    ("rgb_swin3d_32f_t", video.swin3d_t, 64),
    ("rgb_mvit_v2_16f_s", video.mvit_v2_s, 224),
]


each_network = pytest.mark.parametrize(
    ("arch", "builder", "size"), [pytest.param(*row, id=row[0]) for row in NETWORKS]
)


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and statistic away from its initial value, so that none can be lost."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value += 0.2 * noise if name.endswith("running_var") else 0.1 * value.std() * noise
            if value.dim() == 1:
                value += 0.1 * noise
    return net.eval()


@each_network
def test_logits_are_torchvisions(arch, builder, size):
    torch.manual_seed(0)
    theirs = randomised(builder(num_classes=11))
    model = create_model(arch, 11).eval()
    report = load_pretrained(model, theirs.state_dict())
    assert report.missing == []
    clips = torch.randn(1, 3, model.spec.frames, size, size)
    with torch.inference_mode():
        expected = theirs(clips)
        logits = model.classify(model.spatial_pool(model.features(clips)))
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_longer_s3d_clips_differ_from_torchvision_only_in_the_weight_of_the_ends():
    """torchvision averages pairs of neighbours over time, then the pairs."""
    theirs = randomised(video.s3d(num_classes=11))
    model = create_model("rgb_s3d32f", 11).eval()
    load_pretrained(model, theirs.state_dict())
    clips = torch.randn(1, 3, 32, 224, 224)
    with torch.inference_mode():
        tokens = model.spatial_pool(model.features(clips))  # (1, 4, 1024)
        pairs = (tokens[:, :-1] + tokens[:, 1:]) / 2
        torch.testing.assert_close(model.classify(pairs), theirs(clips), rtol=1e-4, atol=1e-5)


@each_network
def test_a_flow_stem_is_the_mean_of_the_rgb_stem(arch, builder, size):
    rgb = builder(num_classes=11)
    model = create_model(arch.replace("rgb", "flow") + "_bert10", 5)
    report = load_pretrained(model, rgb.state_dict())
    (key,) = [line.split()[0] for line in report.reshaped if line.startswith("features")]
    stem = next(m for m in rgb.modules() if isinstance(m, nn.Conv3d) and m.in_channels == 3)
    weight = model.state_dict()[key]
    assert weight.shape[1] == 2
    for channel in (0, 1):
        torch.testing.assert_close(weight[:, channel], stem.weight.mean(dim=1))
    assert all(key.startswith(("bert.", "fc_action.")) for key in report.missing)


@each_network
def test_the_input_is_what_torchvisions_weights_expect(arch, builder, size):
    expected = get_model_weights(builder).DEFAULT.transforms()
    ours = get_arch(arch).input
    assert (list(ours.mean), list(ours.std)) == (expected.mean, expected.std)
    assert [ours.crop] * 2 == expected.crop_size
    if len(expected.resize_size) == 2:
        assert list(reversed(ours.resize)) == expected.resize_size
    else:
        assert [min(ours.resize)] == expected.resize_size


@pytest.mark.parametrize("name", BACKBONES)
def test_factorised_backbones_have_no_cubic_kernel(name):
    with torch.device("meta"):
        features = BACKBONES[name].features(3)
    kernels = [m.kernel_size for m in features.modules() if isinstance(m, nn.Conv3d)]
    spatial = [kernel for kernel in kernels if max(kernel) > 1]
    factorised = bool(spatial) and all(1 in kernel for kernel in spatial)
    assert BACKBONES[name].factorised == factorised
