"""Published weight files: each kind, made here under its published names."""

import pytest
import torch

from models import ArchError, create_model
from models.pretrained import RENAMINGS, load_pretrained

KINDS = {
    "rgb_resneXt3D64f101_bert10_FRMB": "rgb_resneXt3D64f101",
    "rgb_I3D64f_bert2_FRAB": "rgb_I3D64f",
    "rgb_r2plus1d_32f_34_bert10": "rgb_r2plus1d_32f_34",
    "rgb_slowfast64f_50_bert10_FRMB_late": "rgb_slowfast64f_50",
}
CLASSIFIERS = {
    "resneXt3D": "fc",
    "I3D": "logits.conv3d",
    "r2plus1d": "fc",
    "slowfast": "head.projection",
}


def published_file(arch: str) -> dict[str, torch.Tensor]:
    """A plain network's backbone under the published names, with a classifier of 400 classes."""
    model = create_model(arch, 400)
    names = {to: published for published, to in RENAMINGS[model.spec.backbone].items() if to}
    file = {}
    for key, value in model.state_dict().items():
        target = max((to for to in names if key.startswith(to + ".")), key=len, default=None)
        if target is not None:
            file[names[target] + key.removeprefix(target)] = torch.full_like(value, 3)
    classifier = CLASSIFIERS[model.spec.backbone]
    file[f"{classifier}.weight"], file[f"{classifier}.bias"] = torch.ones(400, 8), torch.ones(400)
    return file


@pytest.mark.parametrize(("arch", "plain"), KINDS.items())
def test_published_names_fill_the_backbone(arch, plain):
    model = create_model(arch, 6)
    file = published_file(plain)
    assert "layer1.0.conv1.weight" in file or "resneXt" not in arch
    assert "Mixed_3b.b1a.conv3d.weight" in file or "I3D" not in arch
    assert "stem.0.weight" in file or "r2plus1d" not in arch
    assert "s2.pathway0_res0.branch2.a.weight" in file or "slowfast" not in arch
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_pretrained(model, file)
    for key, value in model.state_dict().items():
        if key in report.missing:
            assert torch.equal(value, before[key]), key
        else:
            assert (value == 3).all(), key
    heads = ("bert", "fc_action", "mapper", "model.head", *model.replaced_blocks())
    assert all(key.startswith(heads) for key in report.missing)
    assert any(key.startswith("fc_action") for key in report.missing)


def test_a_file_of_another_network_is_refused():
    with pytest.raises(ArchError, match="do not fit rgb_I3D64f"):
        load_pretrained(create_model("rgb_I3D64f", 6), published_file("rgb_r2plus1d_32f_34"))


def test_a_missing_backbone_entry_is_refused():
    file = published_file("rgb_I3D64f")
    del file["Mixed_4d.b1a.conv3d.weight"]
    with pytest.raises(ArchError, match=r"features\.10\.b1a\.conv3d\.weight is missing"):
        load_pretrained(create_model("rgb_I3D64f", 6), file)


def test_old_files_without_batch_counters_load():
    file = published_file("rgb_resneXt3D64f101")
    old = {key: value for key, value in file.items() if "num_batches" not in key}
    assert len(old) < len(file)
    load_pretrained(create_model("rgb_resneXt3D64f101", 6), old)


def test_a_checkpoint_with_other_classes_keeps_its_head():
    donor = create_model("rgb_tiny3D16f_bert10_FRMB", 9)
    model = create_model("rgb_tiny3D16f_bert10_FRMB", 4)
    report = load_pretrained(model, donor.state_dict())
    assert report.missing == ["fc_action.weight", "fc_action.bias"]
    assert torch.equal(model.bert.clsToken, donor.bert.clsToken)
