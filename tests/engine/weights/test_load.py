"""Published weight files: each kind, made here under its published names, there and back."""

import pytest
import torch

from engine.weights.formats import PUBLISHED, identify
from engine.weights.load import HEAD_PARTS, load_pretrained, to_published
from models import ArchError, create_model

# Kind -> the plain network, others on its backbone, entries it is known by, the classifier's shape.
KINDS = {
    "ResNeXt3D-101": (
        "rgb_resneXt3D64f101",
        ("rgb_resneXt3D64f101_bert10_FRMB", "rgb_resneXt3D64f101_FRMB_NLB_concatenation"),
        ("conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "fc.bias"),
        (9, 2048),
    ),
    "I3D": (
        "rgb_I3D64f",
        ("rgb_I3D64f_bert2_FRAB", "rgb_I3D64f_FRMB_lstm"),
        ("Conv3d_1a_7x7.conv3d.weight", "Mixed_3b.b1a.bn.bias", "logits.conv3d.bias"),
        (9, 1024, 1, 1, 1),
    ),
    "R(2+1)D-34": (
        "rgb_r2plus1d_32f_34",
        ("rgb_r2plus1d_64f_34_bert10",),
        ("stem.0.weight", "layer4.2.conv2.1.running_var", "fc.weight"),
        (9, 512),
    ),
    "SlowFast": (
        "rgb_slowfast64f_50",
        ("rgb_slowfast64f_50_bert10_FRMB_late", "rgb_slowfast64f_50_bert10_FRAB_early"),
        ("s1.pathway0_stem.conv.weight", "s1_fuse.bn.weight", "head.projection.weight"),
        (9, 2304),
    ),
    "R(2+1)D-18": ("rgb_r2plus1d_16f_18", ("rgb_r2plus1d_16f_18_bert10",), ("stem.3.weight",), ()),
    "R3D-18": ("rgb_r3d_16f_18", ("rgb_r3d_16f_18_bert10",), ("layer2.0.conv1.0.weight",), ()),
    "S3D": ("rgb_s3d64f", ("rgb_s3d64f_bert10",), ("features.2.0.weight",), (9, 1024, 1, 1, 1)),
    "Swin3D-T": ("rgb_swin3d_32f_t", ("rgb_swin3d_32f_t_bert10",), ("head.weight",), ()),
    "MViTv2-S": ("rgb_mvit_v2_16f_s", ("rgb_mvit_v2_16f_s_bert10",), ("head.1.weight",), ()),
}


def published_file(arch: str, value: float = 3.0) -> dict[str, torch.Tensor]:
    """A plain network's weights at 9 classes, all of one value, under the published names."""
    model = create_model(arch, 9)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(value)
    return {key: tensor.clone() for key, tensor in to_published(model).items()}


@pytest.fixture(scope="module")
def i3d_file() -> dict[str, torch.Tensor]:
    return published_file("rgb_I3D64f")


def test_every_published_kind_is_tested():
    assert {kind.name for kind in PUBLISHED.values()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_names_go_there_and_back(kind):
    arch, _, entries, classifier = KINDS[kind]
    donor = create_model(arch, 9)
    file = {key: value.clone() for key, value in to_published(donor).items()}
    assert set(entries) <= set(file)
    assert not any(key.startswith(("fc_action", "model.")) for key in file)
    known = identify(file).kind
    assert known.name == kind
    if classifier:
        assert file[f"{known.classifier}.weight"].shape == classifier
    model = create_model(arch, 9)
    report = load_pretrained(model, file)
    assert (report.kind, report.missing, report.unexpected) == (kind, [], [])
    assert bool(report.reshaped) == known.pointwise
    for key, value in model.state_dict().items():
        assert torch.equal(value, donor.state_dict()[key]), key
    assert to_published(model).keys() == file.keys()


@pytest.mark.parametrize("arch", [arch for row in KINDS.values() for arch in row[1]])
def test_published_names_fill_the_backbone_and_nothing_else(arch):
    model = create_model(arch, 6)
    (plain,) = [row[0] for row in KINDS.values() if arch in row[1]]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    file = published_file(plain)
    report = load_pretrained(model, {f"module.{key}": value for key, value in file.items()})
    own = model.state_dict()
    for key in report.missing:
        assert torch.equal(own[key], before[key]), key
    for key in own.keys() - report.missing:
        if own[key].is_floating_point():
            assert (own[key] == 3).all(), key
    heads = (*(f"{head}." for head in HEAD_PARTS), "model.head.", *model.replaced_blocks())
    assert report.missing
    assert all(key.startswith(heads) for key in report.missing)
    assert report.stripped == "module."
    classifier = PUBLISHED[model.spec.backbone].classifier
    assert {f"{classifier}.weight", f"{classifier}.bias"} <= set(report.unexpected)
    assert "prefix stripped: module." in str(report)


def test_the_replaced_block_is_new_and_the_published_one_left_aside(i3d_file):
    model = create_model("rgb_I3D64f_bert2_FRMB", 6)
    report = load_pretrained(model, i3d_file)
    assert not any(key.startswith("features.15") for key in report.matched)
    left = {key.split(".")[0] for key in report.unexpected}
    assert left == {"Mixed_5c", "logits"}


def test_a_published_classifier_is_not_one_for_other_class_vectors(i3d_file):
    model = create_model("rgb_I3D64f_bert2", 9)  # as wide, as many classes
    report = load_pretrained(model, i3d_file)
    assert {"fc_action.weight", "fc_action.bias"} <= set(report.missing)


def test_only_a_flow_network_averages_the_stem(i3d_file):
    stem = torch.randn_like(i3d_file["Conv3d_1a_7x7.conv3d.weight"])
    model = create_model("flow_I3D64f", 9)
    report = load_pretrained(model, i3d_file | {"Conv3d_1a_7x7.conv3d.weight": stem})
    mean = stem.mean(dim=1)
    for channel in (0, 1):
        torch.testing.assert_close(model.features[0].conv3d.weight[:, channel], mean)
    assert report.reshaped[0].startswith(
        "features.0.conv3d.weight (64, 3, 7, 7, 7) -> (64, 2, 7, 7, 7): the mean over RGB"
    )
    with pytest.raises(ArchError, match=r"features\.0\.conv3d\.weight is \(64, 2, 7, 7, 7\)"):
        load_pretrained(create_model("rgb_I3D64f", 9), to_published(model))


def test_a_file_of_another_network_is_refused():
    file = published_file("rgb_r3d_16f_18")
    with pytest.raises(ArchError, match="do not fit rgb_I3D64f: they are R3D-18's"):
        load_pretrained(create_model("rgb_I3D64f", 6), file)
    with pytest.raises(ArchError, match="no known kind of file: I3D, ResNeXt3D-101"):
        load_pretrained(create_model("rgb_I3D64f", 6), {"encoder.weight": torch.ones(2)})


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("Mixed_4d.b1a.conv3d.weight", None, r"1 entries: features\.10\.b1a\.conv3d.* is missing"),
        ("Mixed_4d.b1a.bn.bias", torch.ones(7), r"is \(7,\), \(128,\) is needed"),
        ("Mixed_9z.b0.bn.bias", torch.ones(7), r"Mixed_9z\.b0\.bn\.bias \(7,\) is unknown"),
        ("bert.clsToken", torch.ones(1, 1, 1024), r"bert\.clsToken \(1, 1, 1024\) is unknown"),
        ("Mixed_3b.b0.bn.weight", torch.full((64,), torch.nan), "b0.bn.weight holds NaN"),
        ("Mixed_3b.b0.bn.weight", torch.full((64,), -torch.inf), "b0.bn.weight holds NaN or inf"),
        (
            "Mixed_3b.b0.bn.weight",
            torch.full((64,), 1e300, dtype=torch.float64),
            "holds NaN or inf",
        ),
        ("Mixed_3b.b0.bn.weight", torch.ones(64, dtype=torch.int64), "has the type int64"),
        ("Mixed_3b.b0.bn.weight", torch.ones(64) + 1j, "has the type complex64"),
        ("module.Mixed_3b.b0.bn.weight", torch.ones(64), "same name but for a prefix"),
    ],
)
def test_anything_else_stops_and_changes_nothing(i3d_file, key, change, message):
    file = {k: v for k, v in i3d_file.items() if k != key}
    if change is not None:
        file[key] = change
    model = create_model("rgb_I3D64f", 6)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ArchError, match=message):
        load_pretrained(model, file)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_half_precision_files_load(i3d_file):
    model = create_model("rgb_I3D64f", 6)
    file = {k: v for k, v in i3d_file.items() if v.is_floating_point()}
    load_pretrained(model, {k: v.half() for k, v in file.items()})
    assert model.features[0].conv3d.weight.dtype == torch.float32
    assert (model.features[0].conv3d.weight == 3).all()


def test_old_files_without_batch_counters_load():
    file = published_file("rgb_resneXt3D64f101")
    old = {key: value for key, value in file.items() if "num_batches" not in key}
    assert len(old) < len(file)
    report = load_pretrained(create_model("rgb_resneXt3D64f101", 6), old)
    assert report.missing == ["fc_action.weight", "fc_action.bias"]


def test_a_checkpoint_with_other_classes_keeps_its_head():
    donor = create_model("rgb_tiny3D16f_bert10_FRMB", 9)
    model = create_model("rgb_tiny3D16f_bert10_FRMB", 4)
    report = load_pretrained(model, donor.state_dict())
    assert report.missing == report.unexpected == ["fc_action.weight", "fc_action.bias"]
    assert torch.equal(model.bert.clsToken, donor.bert.clsToken)


def test_a_head_that_fits_in_part_only_is_new_as_a_whole():
    donor = create_model("rgb_tiny3D32f_bert10_FRMB", 4)  # more positions
    model = create_model("rgb_tiny3D16f_bert10_FRMB", 4)
    report = load_pretrained(model, donor.state_dict())
    assert {key.split(".")[0] for key in report.missing} == {"bert"}
    assert set(report.missing) == {k for k in model.state_dict() if k.startswith("bert.")}
    assert torch.equal(model.fc_action.weight, donor.fc_action.weight)


def test_networks_with_blocks_of_their_own_are_not_published():
    with pytest.raises(ArchError, match="block of its own"):
        to_published(create_model("rgb_I3D64f_bert2_FRMB", 6))
    with pytest.raises(ArchError, match="no published weights"):
        to_published(create_model("rgb_tiny3D16f", 6))
    bert = to_published(create_model("rgb_I3D64f_bert2", 6))
    assert "Mixed_5c.b0.bn.bias" in bert
    assert not any(key.startswith(("logits", "bert")) for key in bert)
