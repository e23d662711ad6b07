"""What `--speed` and the single flags mean on a device, and what is said of what it lacks."""

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion

from engine import UsageError
from engine.config import SpeedConfig
from engine.speed import Speed, autocast, choose_speed, fit, presets
from models import create_model, get_arch, list_archs

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("config", "with_units", "without"),
    [
        (SpeedConfig(), Speed("exact", "off", True, False), None),
        (SpeedConfig("exact"), Speed("exact", "off", True, False), None),
        (SpeedConfig("fast"), Speed("fast", "bf16", True, False), "off"),
        (SpeedConfig("max"), Speed("max", "bf16", True, True), "off"),
        (SpeedConfig("max", amp="off"), Speed("max", "off", True, True), None),
        (SpeedConfig("exact", amp="bf16"), Speed("exact", "bf16", True, False), None),
        (SpeedConfig("fast", compile=True), Speed("fast", "bf16", True, True), "off"),
        (SpeedConfig("fast", "off", False), Speed("fast", "off", False, False), None),
    ],
)
def test_presets_on_a_cpu(config, with_units, without, monkeypatch, capsys):
    """Single flags win; without bfloat16 units a preset's type is float32, and that is said."""
    monkeypatch.setattr(presets, "computes_bf16", lambda device: True)
    assert choose_speed(config, CPU) == with_units
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(presets, "computes_bf16", lambda device: False)
    speed = choose_speed(config, CPU)
    said = capsys.readouterr().out
    assert speed.amp == (without or with_units.amp)
    assert (speed.channels_last, speed.compile) == (with_units.channels_last, with_units.compile)
    assert ("computing in float32" in said) == (without is not None)
    assert ("float32 is faster here" in said) == (config.amp == "bf16")


def test_factorised_networks_train_in_the_usual_layout_with_avx2(monkeypatch):
    for units, expected in (("AVX2", False), ("AVX512", True)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda units=units: units)
        assert choose_speed(SpeedConfig(), CPU, True).channels_last == expected
        assert choose_speed(SpeedConfig(), CPU).channels_last
        assert choose_speed(SpeedConfig(channels_last=True), CPU, True).channels_last


def test_half_floats_on_a_cpu_are_refused():
    with pytest.raises(UsageError, match="--amp fp16 needs a GPU.*--amp bf16"):
        choose_speed(SpeedConfig(amp="fp16"), CPU)


@pytest.mark.parametrize("version", ["2.9.1", "2.10.0+cu128"])
def test_an_old_torch_is_refused(version, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(UsageError, match="too old, install 2.11.*10 to 20 times slower"):
        choose_speed(SpeedConfig(), CPU)
    for new in ("2.11.0+cu130", "3.0"):
        monkeypatch.setattr(torch, "__version__", TorchVersion(new))
        choose_speed(SpeedConfig(), CPU)


def test_the_number_type_is_that_of_products():
    a = torch.rand(4, 4)
    for amp, dtype in (("off", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(CPU, amp):
            assert (a @ a).dtype == dtype


def test_weights_change_their_layout_alone():
    model = create_model("rgb_tiny3D16f_bert10", 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, Speed("exact", "off", channels_last=False, compile=False))
    kernels = [p for p in model.parameters() if p.dim() == 5]
    assert all(p.is_contiguous() for p in kernels)
    fit(model, Speed("exact", "off", channels_last=True, compile=False))
    assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in kernels)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("backbone", sorted({get_arch(name).backbone for name in list_archs()}))
def test_no_convolution_with_a_stride_is_one_pixel_wide(backbone):
    """There torch's bfloat16 convolutions on CPUs may be wrong; smaller crops would get there."""
    name = next(name for name in list_archs() if get_arch(name).backbone == backbone)
    widths = []
    with torch.device("meta"):
        model = create_model(name, 5).eval()
        for module in model.modules():
            if isinstance(module, nn.Conv3d) and max(module.stride) > 1:
                module.register_forward_hook(lambda _, __, output: widths.append(output.shape[-1]))
        model(torch.empty(1, *get_arch(name).clip_shape))
    assert min(widths) >= 4
