"""Every format: written, read again, the same answers for any number and size of clips."""

import numpy as np
import pytest
import torch

from engine import UsageError
from engine.exporting import check, formats
from engine.exporting.check import AGREEMENT
from engine.exporting.clips import made_clips
from engine.exporting.export import check_export, deploy, file_metadata, write_export
from engine.exporting.formats import FORMATS, trace
from engine.exporting.latency import measure_latency
from tests.engine.exporting.networks import trained

# Rows of several backbones; docs/EXPORT.md says which others were tried.
FAMILIES = (  # the others take minutes each: tests/engine/exporting/sweep.py
    "rgb_resneXt3D64f101_bert10_FRMB",
    "rgb_slowfast64f_50_bert10_FRAB_late",
    "flow_I3D64f_bert2_FRAB",
    "flow_r2plus1d_16f_18_bert10",
    "rgb_r3d_16f_18",
)
HEADS = (
    "rgb_tiny3D16f",
    "rgb_tiny3D16f_FRMB_lstm",
    "rgb_tiny3D16f_concatenation",
    "rgb_tiny3D16f_FRMB_NLB_concatenation",
    "flow_tiny3D16f_bert10_FRMB",
)


def export_all(network, names, folder, ten_crop=False, clips=2):
    deployed = deploy(network, ten_crop)
    inputs = made_clips(network.spec, deployed.sizes[0], clips)
    metadata, program = file_metadata(network, deployed), trace(deployed)
    with torch.inference_mode():
        wanted = deployed(torch.from_numpy(inputs)).numpy()
    assert np.abs(wanted[0] - wanted[1]).max() > 100 * AGREEMENT  # so agreement means something
    found = []
    for name in names:
        path = folder / f"net{FORMATS[name].suffix}"
        file = write_export(program, deployed, metadata, name, path, inputs)
        assert file.difference <= AGREEMENT and path.stat().st_size > 10_000
        again = FORMATS[name].read(path)
        np.testing.assert_allclose(again(inputs), wanted, atol=AGREEMENT)
        assert FORMATS[name].read_metadata(path) == metadata
        found.append(file)
    assert sorted(p.name for p in folder.iterdir()) == sorted(f.path.name for f in found)
    return deployed, found, inputs


def test_pt2_and_onnx_of_a_network_in_ten_crops(tmp_path):
    network = trained("rgb_tiny3D16f_bert10_FRMB")
    deployed, files, clips = export_all(network, ("pt2", "onnx"), tmp_path, ten_crop=True)
    rows = measure_latency(deployed, files, clips[:1], repeats=2)
    assert [row["format"] for row in rows] == ["PyTorch", "pt2", "onnx"]
    assert all(0 < row["from"] <= row["ms"] <= row["to"] for row in rows)
    assert rows[0]["times as fast"] == 1


def test_a_network_that_does_not_agree_is_not_written(tmp_path):
    network = trained("rgb_tiny3D16f")
    deployed = deploy(network, False)
    clips = made_clips(network.spec, deployed.sizes[0])
    program = trace(deployed)
    last = deployed.network.fc_action
    last.bias = torch.nn.Parameter(last.bias + torch.tensor([0.01, 0, 0, 0, 0]))  # another network
    output = tmp_path / "net.pt2"
    output.write_bytes(b"earlier")
    with pytest.raises(UsageError, match=r"pt2 network does not agree.*nothing was written"):
        write_export(program, deployed, {}, "pt2", output, clips)
    assert output.read_bytes() == b"earlier" and [*tmp_path.iterdir()] == [output]


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"no folder .*missing to write net.pt2 into"):
        check_export("pt2", tmp_path / "missing" / "net.pt2")
    with pytest.raises(UsageError, match="is a folder"):
        check_export("pt2", tmp_path)
    monkeypatch.setattr(
        formats.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else True
    )
    with pytest.raises(UsageError, match="needs the package onnxruntime: pip install"):
        check_export("onnx", tmp_path / "net.onnx")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler.*--format pt2"):
        check_export("aoti", tmp_path / "net.pt2")
    assert not [*tmp_path.iterdir()]


def test_answers_of_another_shape_or_not_finite_are_no_agreement():
    wanted = np.full((2, 3), 1 / 3, np.float32)
    assert check._difference(wanted, wanted) == 0
    assert check._difference(wanted[:1], wanted) == np.inf
    assert check._difference(wanted.astype(np.float64), wanted) == np.inf
    assert not check._difference(wanted * np.nan, wanted) <= AGREEMENT
    sure = np.array([[1, 1e-12]], np.float32)
    assert check._difference(sure * [[1, 3]], sure.astype(np.float64)) > AGREEMENT


@pytest.mark.slow
@pytest.mark.parametrize("arch", HEADS)
def test_every_kind_of_head(arch, tmp_path):
    export_all(trained(arch), ("pt2", "onnx"), tmp_path, ten_crop=True)


@pytest.mark.slow
@pytest.mark.parametrize("arch", FAMILIES)
def test_every_kind_of_backbone(arch, tmp_path):
    export_all(trained(arch), ("pt2", "onnx"), tmp_path)


@pytest.mark.slow
def test_a_compiled_package(tmp_path):
    try:
        FORMATS["aoti"].needs()
    except UsageError as error:
        pytest.skip(str(error))
    export_all(trained("rgb_tiny3D16f_bert10_FRMB"), ("aoti",), tmp_path, ten_crop=True)
