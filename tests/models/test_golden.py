"""All 27 networks against the reference implementation: names, shapes, order and logits."""

import pytest
import torch

from models import create_model, list_archs
from tests.conftest import STATE_DICTS, filled_model, golden
from tests.golden import fill

LOGITS = golden("logits.json")
PARAMETERS = {  # millions, at 51 classes
    "rgb_resneXt3D64f101": 47.626,
    "rgb_resneXt3D64f101_bert10_FRMB": 47.378,
    "rgb_resneXt3D64f101_bert10_FRAB": 52.465,
    "rgb_resneXt3D64f101_FRMB_adamw": 44.222,
    "rgb_resneXt3D64f101_FRMB_lstm": 47.578,
    "rgb_resneXt3D64f101_concatenation": 47.451,
    "rgb_resneXt3D64f101_FRMB_NLB_concatenation": 47.348,
    "rgb_I3D64f": 12.340,
    "rgb_I3D64f_bert2": 24.946,
    "rgb_I3D64f_bert2_FRMB": 13.539,
    "rgb_I3D64f_bert2_FRAB": 16.396,
    "rgb_r2plus1d_32f_34": 63.518,
    "rgb_r2plus1d_32f_34_bert10": 66.674,
}


def meta_model(arch: str) -> torch.nn.Module:
    with torch.device("meta"):
        return create_model(arch, 51)


def test_every_published_architecture_is_listed():
    assert len(STATE_DICTS) == 27
    assert set(STATE_DICTS) <= set(list_archs())
    assert set(LOGITS) == set(STATE_DICTS)


@pytest.mark.parametrize("arch", STATE_DICTS)
def test_state_dict_has_the_reference_keys_shapes_order_and_aliases(arch):
    state_dict = meta_model(arch).state_dict(keep_vars=True)
    expected = [(key, list(shape)) for key, shape in STATE_DICTS[arch]["entries"].items()]
    assert [(key, list(value.shape)) for key, value in state_dict.items()] == expected
    first: dict[int, str] = {}
    aliases = {}
    for key, value in state_dict.items():
        if first.setdefault(id(value), key) != key:
            aliases[key] = first[id(value)]
    assert aliases == STATE_DICTS[arch]["aliases"]


@pytest.mark.parametrize("arch", STATE_DICTS)
def test_parameters_follow_the_state_dict_so_optimizer_state_maps_by_position(arch):
    entries, aliases = STATE_DICTS[arch]["entries"], STATE_DICTS[arch]["aliases"]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    expected = [key for key in entries if key not in aliases and not key.endswith(buffers)]
    assert [name for name, _ in meta_model(arch).named_parameters()] == expected


@pytest.mark.parametrize("arch", PARAMETERS)
def test_number_of_parameters(arch):
    count = sum(p.numel() for p in meta_model(arch).parameters())
    assert round(count / 1e6, 3) == PARAMETERS[arch]


@pytest.mark.parametrize("arch", LOGITS)
def test_logits_agree(arch):
    clip_of = LOGITS[arch]["input"]
    clips = torch.from_numpy(fill.clip(clip_of["name"], tuple(clip_of["shape"])))
    with torch.inference_mode():
        logits = filled_model(arch)(clips)
    expected = torch.tensor(LOGITS[arch]["logits"])
    error = (logits - expected).abs()
    assert ((error <= 2e-4) | (error <= 1e-4 * expected.abs())).all(), error.max()
