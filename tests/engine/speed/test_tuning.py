"""max keeps a variant only if it is right and faster; else the plainer one stays."""

import copy

import pytest
import torch

from engine.speed import InferenceEncoder, Speed, compile_training, tuning
from models import create_model
from models.rewriting import fold_batch_norms

MAX = Speed("max", "off", channels_last=True, compile=True)
PLAIN = Speed("exact", "off", channels_last=True, compile=False)
ARCH = "rgb_tiny3D16f_bert10"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model(ARCH, 3).eval()


@pytest.fixture
def inputs():
    return torch.randn(2, 16, 56, 56, 3).permute(0, 4, 1, 2, 3)


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a pass, and gains of each variant in turn, in place of measured ones."""

    def set_times(*gains):
        found = iter(gains)
        monkeypatch.setattr(tuning, "time_pass", lambda model, run: 1.0)
        monkeypatch.setattr(tuning, "gain_of", lambda one, other, run: next(found))

    return set_times


def use(monkeypatch, **steps):
    monkeypatch.setattr(tuning, "inference_steps", lambda inputs: steps)


def double_the_stem(model):
    model.features[0].weight.data *= 2


def fail(model):
    raise RuntimeError("no C++ compiler\nand many lines of what it looked for")


def test_the_faster_right_variant_is_kept(model, inputs, clock, monkeypatch, capsys):
    expected = model.encode(inputs)
    weights = copy.deepcopy(model.state_dict())
    use(monkeypatch, folded=lambda m: fold_batch_norms(m, inputs))
    clock(2.0)
    encoder = InferenceEncoder(model, MAX)
    found = encoder(inputs)
    assert "folded x2.00, kept" in capsys.readouterr().out
    assert encoder.model is not model
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # the network itself stays, and nothing is tried again
    after = model.state_dict()
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    encoder(inputs)
    assert capsys.readouterr().out == ""


def test_a_slower_variant_is_left(model, inputs, clock, monkeypatch, capsys):
    use(monkeypatch, folded=lambda m: fold_batch_norms(m, inputs))
    clock(1.02)
    encoder = InferenceEncoder(model, MAX)
    encoder(inputs)
    assert encoder.model is model
    assert "folded x1.02, not kept: 1.00 times as fast" in capsys.readouterr().out


def test_a_wrong_variant_is_left_however_fast(model, inputs, clock, monkeypatch, capsys):
    use(monkeypatch, wrong=double_the_stem)
    clock(10.0)
    encoder = InferenceEncoder(model, MAX)
    torch.testing.assert_close(encoder(inputs), model.encode(inputs))
    assert "wrong x10.00, not kept: differs by" in capsys.readouterr().out


def test_a_variant_that_fails_is_left(model, inputs, clock, monkeypatch, capsys):
    use(monkeypatch, compiled=fail)
    clock()
    torch.testing.assert_close(InferenceEncoder(model, MAX)(inputs), model.encode(inputs))
    assert "compiled: failed (no C++ compiler)" in capsys.readouterr().out


def test_little_work_is_not_warmed_up_for(model, inputs, clock, capsys):
    clock()
    encoder = InferenceEncoder(model, MAX, views=20)
    encoder(inputs)
    assert encoder.model is model
    assert "about 10 s of work would not pay for 95 s" in capsys.readouterr().out


def test_little_training_is_not_compiled_for(model, clock, monkeypatch, capsys):
    clock()
    monkeypatch.setattr(tuning, "compile_encoder", lambda model, options: fail(model))
    compile_training(model.train(), MAX, 2, batches=10)
    assert "about 10 s of work would not pay for 67 s" in capsys.readouterr().out
    compile_training(model, MAX, 2, batches=1000)
    assert "compiled: failed" in capsys.readouterr().out


def test_gains_are_medians_of_turns(model, monkeypatch):
    """A turn in which the machine was slow for one of the two does not decide."""
    seconds = iter([2.0, 1.0, 2.0, 8.0, 4.0, 2.0])
    monkeypatch.setattr(tuning, "time_pass", lambda model, run: next(seconds))
    assert tuning.gain_of(model, model, None) == 2.0


def test_gains_multiply(model, inputs, clock, monkeypatch, capsys):
    use(monkeypatch, one=lambda model: 1, two=lambda model: 1, three=lambda model: 1)
    clock(1.5, 0.5, 2.0)
    InferenceEncoder(model, MAX)(inputs)
    assert "two x0.50, not kept" in (said := capsys.readouterr().out)
    assert "3.00 times as fast" in said


def test_other_presets_try_nothing(model, inputs, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "tune", fail)
    torch.testing.assert_close(InferenceEncoder(model, PLAIN)(inputs), model.encode(inputs))
    compile_training(model, PLAIN, 2)
    assert capsys.readouterr().out == ""


def test_all_variants_of_a_network(model, inputs, monkeypatch, capsys):
    """As a user has it, compiler and clock included: whatever is kept is right."""
    expected = model.encode(inputs)
    found = InferenceEncoder(model, MAX)(inputs)
    said = capsys.readouterr().out
    assert "batch norms folded x" in said and "compiled" in said and "times as fast" in said
    assert float((found - expected).detach().norm() / expected.detach().norm()) < 1e-4


def test_a_training_is_compiled_in_place_if_that_is_right_and_faster(
    model, clock, monkeypatch, capsys
):
    monkeypatch.setattr(tuning, "compile_encoder", lambda model, options: fail(model))
    clock()
    model.train()
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    compile_training(model, MAX, 2)
    assert "compiled: failed" in capsys.readouterr().out
    changed = []
    monkeypatch.setattr(tuning, "compile_encoder", lambda model, options: changed.append(model))
    clock(2.0)
    compile_training(model, MAX, 2)
    assert "compiled x2.00, kept" in capsys.readouterr().out
    assert len(changed) == 2 and changed[1] is model and changed[0] is not model
    # a wrong one is not, however fast
    monkeypatch.setattr(tuning, "compile_encoder", lambda model, options: double_the_stem(model))
    clock(9.0)
    compile_training(model, MAX, 2)
    assert "not kept: differs by" in capsys.readouterr().out
    # neither random numbers nor batch statistics know of the trial
    assert torch.equal(state, torch.get_rng_state())
    after = model.state_dict()
    assert all(torch.equal(weights[name], after[name]) for name in weights)
