"""Names without a row: what they compose, what they are called, and why some make no sense."""

import itertools

import pytest
import torch

from models import ArchError, create_model, get_arch, list_archs
from models.archs import ARCHS
from models.backbones import BACKBONES
from models.names import FUSIONS, HEADS, REDUCTIONS, Parts, split_name


def test_rows_come_first_and_keep_their_irregular_meaning():
    for name in list_archs():
        assert get_arch(name) is ARCHS[name]
    row = get_arch("rgb_resneXt3D64f101_concatenation")
    assert (row.reduction, row.hidden) == ("FRMB", 1550)


@pytest.mark.parametrize(
    ("name", "head", "reduction", "hidden", "dropout"),
    [
        ("rgb_I3D64f_FRMB_lstm", "lstm", "FRMB", 450, 0.8),
        ("rgb_I3D64f_concatenation", "concatenation", None, 1550, 0.8),
        ("flow_I3D32f_FRAB_NLB_concatenation", "nlb_concatenation", "FRAB", 1000, 0.8),
        ("rgb_tiny3D16f_bert2", "bert2", None, 0, 0.2),
        ("rgb_tiny3D32f_FRAB_lstm", "lstm", "FRAB", 64, 0.2),
        ("rgb_r2plus1d_16f_34_lstm", "lstm", None, 450, 0.8),
        ("flow_swin3d_16f_t_bert2", "bert2", None, 0, 0.8),
        ("rgb_mvit_v2_16f_s_concatenation", "concatenation", None, 1550, 0.8),
        ("rgb_resneXt3D32f101_FRMB", "average", "FRMB", 0, 0.8),
        ("flow_I3D32f", "average", None, 0, 0.7),
        ("flow_I3D32f_lstm", "lstm", None, 450, 0.8),
    ],
)
def test_parts_compose(name, head, reduction, hidden, dropout):
    spec = get_arch(name)
    assert spec.name == name
    assert (spec.head, spec.reduction) == (head, reduction)
    assert spec.hidden == hidden
    assert spec.dropout == dropout
    with torch.device("meta"):
        model = create_model(name, 7).eval()
        assert model(torch.empty(2, *spec.clip_shape)).shape == (2, 7)


def test_the_order_of_the_parts_does_not_matter_but_the_name_is_the_tables():
    assert get_arch("rgb_tiny3D16f_FRMB_bert10") is get_arch("rgb_tiny3D16f_bert10_FRMB")
    assert get_arch("rgb_I3D64f_lstm_FRMB").name == "rgb_I3D64f_FRMB_lstm"
    early = get_arch("rgb_slowfast64f_50_early_FRMB_bert10")
    assert early is get_arch("rgb_slowfast64f_50_bert10_FRMB_early")
    assert get_arch("rgb_tiny3D16f_NLB_concatenation_FRMB").name == (
        "rgb_tiny3D16f_FRMB_NLB_concatenation"
    )


def test_the_other_modality_of_a_row_is_its_twin():
    for suffix in ("_concatenation", "_FRMB_lstm", "_FRMB_adamw", "_adamw"):
        rgb, flow = (get_arch(f"{m}_resneXt3D64f101{suffix}") for m in ("rgb", "flow"))
        assert (flow.modality, flow.input.channels) == ("flow", 2)
        assert (flow.head, flow.reduction, flow.hidden) == (rgb.head, rgb.reduction, rgb.hidden)
    assert get_arch("flow_r2plus1d_64f_34_bert10").input.std == (0.226, 0.226)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rgb_r2plus1d_32f_34_bert10_FRMB", "no reduction block"),
        ("rgb_swin3d_32f_t_FRAB", "no reduction block"),
        ("rgb_I3D64f_bert2_late", "I3D has one"),
        ("rgb_I3D60f_bert2", "token of 8 frames, 60 is no multiple"),
        ("rgb_mvit_v2_32f_s", "takes 16 frames, not 32"),
        ("rgb_slowfast32f_50", "takes 64 frames, not 32"),
        ("flow_slowfast64f_50", "no input is known for flow"),
        ("rgb_slowfast64f_50_bert10_early", "FRAB or FRMB"),
        ("rgb_slowfast64f_50_bert10_FRMB", "early or late"),
        ("rgb_slowfast64f_50_FRMB", "needs bert10"),
        ("rgb_slowfast64f_50_FRMB_lstm", "no 'lstm'"),
        ("rgb_I3D64f_FRMB_FRMB", "FRMB and FRMB, one is the most"),
        ("rgb_I3D64f_FRAB_FRMB_bert2", "FRAB and FRMB, one is the most"),
        ("rgb_I3D64f_bert2_lstm", "no head 'bert2_lstm'"),
        ("rgb_I3D64f_lstm_2layers", "no head 'lstm_2layers'"),
    ],
)
def test_parts_that_do_not_go_together_say_why(name, reason):
    with pytest.raises(ArchError, match=f"'{name}' makes no sense: .*{reason}"):
        get_arch(name)


@pytest.mark.parametrize(
    "name",
    [
        "rgb_I3D64f_bert3",
        "rgb_I3D0f",
        "audio_I3D64f",
        "rgb_resneXt3D64f50",
        "rgb_I3D64fbert2",
    ],
)
def test_names_that_follow_no_grammar_list_the_closest(name):
    with pytest.raises(ArchError, match=f"unknown architecture '{name}': (did you mean|known)"):
        get_arch(name)


def test_every_combination_is_built_or_refused():
    """All backbones x heads x reductions x fusions at the published lengths: no third outcome."""
    built = set()
    for backbone, row in BACKBONES.items():
        frames = {spec.frames for spec in ARCHS.values() if spec.backbone == backbone}
        for parts in itertools.product(
            ("rgb", "flow"), [backbone], frames, HEADS, ("", *REDUCTIONS), ("", *FUSIONS)
        ):
            name = Parts(*parts).name
            assert split_name(name) == parts
            assert row.naming.format(parts[2]) in name
            try:
                spec = get_arch(name)
            except ArchError as error:
                assert "makes no sense" in str(error)
                continue
            built.add(name)
            assert (spec.name, spec.modality, spec.frames) == (name, parts[0], parts[2])
            assert spec.modality in row.inputs
            if backbone in ("tiny3D", "I3D"):
                with torch.device("meta"):
                    create_model(name, 5)
    assert len(built) > 100
