"""Which file a training starts from, getting and checking files, and the real Kinetics weights."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.models import get_model_weights
from torchvision.models.video import r3d_18

from datasets.sampling import single_clip
from datasets.sources.videos import read_frames
from engine.data import normalization
from engine.files import CheckpointError
from engine.weights import convert as weight_files
from engine.weights.choose import find_weights, start_from_weights
from engine.weights.convert import (
    convert_weights,
    get_weights,
    hash_tensors,
    inspect_weights,
)
from engine.weights.download import DownloadError, sha256_of
from engine.weights.load import load_weights, to_published
from engine.weights.sources import (
    WEIGHT_SOURCES,
    get_source,
    known_as,
    sources_for,
)
from models import ArchError, create_model, get_arch
from models.backbones import BACKBONES
from tests.conftest import ROOT, SHARED, needs_videos
from video_transforms import CenterCrop

TINY = "rgb_tiny3D16f_bert10_FRMB"
I3D = ROOT / "weights" / "i3d-rgb-kinetics400.pt"


def published(arch: str, classes: int = 5) -> dict[str, torch.Tensor]:
    model = create_model(arch, classes)
    return {key: value.clone() for key, value in to_published(model).items()}


@pytest.fixture(scope="module")
def r3d(tmp_path_factory):
    """A folder with a file of random R3D-18 weights under the published file's name."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(
        r3d_18(num_classes=400).state_dict(), folder / get_source("r3d-18-kinetics400").files[0]
    )
    return folder


def test_sources_are_sound():
    assert len({source.name for source in WEIGHT_SOURCES}) == len(WEIGHT_SOURCES)
    files = [name for source in WEIGHT_SOURCES for name in source.files]
    assert len(set(files)) == len(files)
    for source in WEIGHT_SOURCES:
        assert source.backbone in BACKBONES
        assert source.licence
        assert sum(map(bool, (source.url, source.package, source.by_hand))) == 1
        if source.url:
            assert source.url.startswith("https://")
            assert source.url.endswith(source.files[0])
    torchvisions = [s for s in WEIGHT_SOURCES if "pytorch.org" in s.url]
    assert len(torchvisions) == 5
    assert all(len(source.sha256) == 8 for source in torchvisions)
    assert get_source("s3d-kinetics400").url == get_model_weights("s3d").DEFAULT.url


def test_sources_for_an_architecture_come_best_first():
    assert [s.name for s in sources_for(get_arch("rgb_I3D64f_bert2"))][0] == "i3d-rgb-kinetics400"
    flow = [s.modality for s in sources_for(get_arch("flow_I3D64f"))]
    assert flow[0] == "flow" and flow[-1] == "rgb"
    assert [s.frames for s in sources_for(get_arch("rgb_r2plus1d_8f_34"))] == [8, 8, 32, 32]
    assert [s.frames for s in sources_for(get_arch("rgb_r2plus1d_64f_34"))] == [32, 32, 8, 8]
    assert sources_for(get_arch("rgb_tiny3D16f")) == []
    with pytest.raises(ArchError, match="known: i3d-rgb-kinetics400, "):
        get_source("i3d")


def test_auto_takes_the_right_file_where_there_is_one(tmp_path):
    spec = get_arch("flow_I3D64f_bert2")
    assert find_weights(spec, "auto", tmp_path) is None
    rgb = tmp_path / "i3d-rgb-kinetics400.pt"
    rgb.touch()
    assert find_weights(spec, "auto", tmp_path) == rgb
    flow = tmp_path / "flow_imagenet.pt"
    flow.touch()
    assert find_weights(spec, "auto", tmp_path) == flow
    assert find_weights(get_arch("rgb_I3D64f"), "auto", tmp_path) == rgb
    assert find_weights(get_arch("rgb_tiny3D16f"), "auto", tmp_path) is None
    assert find_weights(spec, "none", tmp_path) is None
    assert find_weights(spec, "i3d-rgb-kinetics400", tmp_path) == rgb
    assert find_weights(spec, str(flow), tmp_path) == flow
    other = tmp_path / "resnext-101-64f-kinetics.pth"
    other.touch()
    assert find_weights(get_arch("rgb_resneXt3D64f101"), "auto", tmp_path) == other


def test_a_source_that_is_not_there_says_how_to_get_it(tmp_path):
    spec = get_arch("rgb_s3d64f")
    with pytest.raises(CheckpointError, match="scripts/weights.py get s3d-kinetics400"):
        find_weights(spec, "s3d-kinetics400", tmp_path)
    with pytest.raises(ArchError, match="no weights are named 's3d'; known: i3d-rgb"):
        find_weights(spec, "s3d", tmp_path)
    with pytest.raises(CheckpointError, match="find flow_imagenet.pt .*pytorch-i3d.*put it into"):
        find_weights(spec, "i3d-flow-imagenet-kinetics400", tmp_path)


def test_what_was_loaded_is_said(r3d, tmp_path):
    said = start_from_weights(create_model("flow_r3d_16f_18_bert10", 4), "auto", r3d)
    for part in (
        "r3d_18-b3b3357e.pth: R3D-18, 120 entries loaded",
        "new: 20 entries (bert, fc_action)",
        "left aside: 2 entries (fc)",
        "reshaped: features.0.0.weight (64, 3, 3, 7, 7) -> (64, 2, 3, 7, 7): the mean over RGB",
    ):
        assert part in said, said
    scratch = "no weights: training from scratch"
    model = create_model("rgb_r3d_16f_18", 4)
    assert start_from_weights(model, "auto", tmp_path) == (
        f"{scratch}; scripts/weights.py has r3d-18-kinetics400"
    )
    assert start_from_weights(model, "none", r3d) == scratch
    assert start_from_weights(create_model("rgb_tiny3D16f", 4), "auto", r3d) == scratch


def test_files_that_wrap_their_state_dict_are_read(tmp_path):
    state_dict = {f"module.{k}": v for k, v in published("rgb_r3d_16f_18").items()}
    model = create_model("rgb_r3d_16f_18_bert10", 3)
    for place, content in enumerate(
        ({"state_dict": state_dict, "arch": "x"}, {"model_state": state_dict}, state_dict)
    ):
        torch.save(content, tmp_path / f"{place}.pth")
        report = load_weights(model, tmp_path / f"{place}.pth")
        assert (report.kind, report.stripped) == ("R3D-18", "module.")
    torch.save({"state_dict": [1]}, tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="list.pth holds a list"):
        load_weights(model, tmp_path / "list.pth")


def test_an_inspection_says_what_a_file_is(r3d):
    (path,) = r3d.iterdir()
    file, named, fits = inspect_weights(path)
    assert (file.kind.name, file.classes, file.dtypes) == ("R3D-18", 400, ["float32", "int64"])
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (named, known_as(sha256_of(path), hash_tensors(file.entries))) == ("", [])
    assert fits["rgb_r3d_16f_18"] == ""
    assert fits["rgb_r3d_16f_18_bert10"] == "new: bert, fc_action"
    assert fits["flow_r3d_16f_18"] == "stem: mean over RGB"
    assert len(fits) == 4


def test_an_inspection_of_a_checkpoint_of_a_composed_architecture(tmp_path):
    model = create_model("rgb_tiny3D32f_FRAB_lstm", 7)
    torch.save({"arch": model.spec.name, "state_dict": model.state_dict()}, tmp_path / "a.pth")
    file, named, fits = inspect_weights(tmp_path / "a.pth")
    assert (file.kind.name, named, file.classes) == ("checkpoint", "rgb_tiny3D32f_FRAB_lstm", 7)
    assert fits["rgb_tiny3D32f_FRAB_lstm"] == ""
    assert fits["rgb_tiny3D16f"] == "new: fc_action"


def test_a_fingerprint_is_of_the_numbers_and_not_of_the_file():
    one = {"b": torch.ones(2), "a": torch.zeros(3)}
    same = {"a": torch.zeros(3), "b": torch.ones(2), "x.num_batches_tracked": torch.tensor(1)}
    assert hash_tensors(one) == hash_tensors(same)
    for change in ({"b": torch.ones(2, 1)}, {"b": torch.ones(2).double()}, {"c": torch.ones(1)}):
        assert hash_tensors(one | change) != hash_tensors(one)
    assert known_as("91a641e6" + "0" * 56, "") == ["r2plus1d-18-kinetics400"]
    source = get_source("i3d-rgb-kinetics400")
    assert known_as("0" * 64, source.contents) == [source.name]


def test_weights_are_converted_there_and_back(r3d, tmp_path):
    (path,) = r3d.iterdir()
    content = convert_weights(path, "rgb_r3d_16f_18_bert10", published=False)
    assert content["arch"] == "rgb_r3d_16f_18_bert10"
    assert all(key.startswith("features.") for key in content["state_dict"])
    content = convert_weights(path, "rgb_r3d_16f_18", published=False)
    assert len(content["state_dict"]["fc_action.bias"]) == 400
    torch.save(content, tmp_path / "ours.pth")
    back = convert_weights(tmp_path / "ours.pth", None, published=True)
    original = torch.load(path)
    assert back.keys() == original.keys()
    assert hash_tensors(back) == hash_tensors(original)
    with pytest.raises(CheckpointError, match="names no architecture; say which with --arch"):
        convert_weights(path, None, published=False)


def test_what_is_fetched_must_be_the_sources(r3d, tmp_path, monkeypatch):
    (path,) = r3d.iterdir()
    source = get_source("s3d-kinetics400")

    def fetch(url, target, sha256, verify):
        assert (url, sha256) == (source.url, "d76dad2f")
        verify(path)

    monkeypatch.setattr(weight_files, "download", fetch)
    with pytest.raises(CheckpointError, match="fetched for s3d-kinetics400 is R3D-18's"):
        get_weights(source, tmp_path / "s3d.pth")
    source = replace(source, backbone="r3d_18", contents="0")
    with pytest.raises(CheckpointError, match="other numbers than known"):
        get_weights(source, tmp_path / "s3d.pth")
    get_weights(replace(source, contents=""), tmp_path / "s3d.pth")
    for source in WEIGHT_SOURCES:
        if source.by_hand:
            with pytest.raises(CheckpointError, match="cannot be fetched: find"):
                get_weights(source, tmp_path / "x")


def test_without_a_network_get_says_what_to_fetch(tmp_path, monkeypatch):
    def nothing(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", nothing)
    with pytest.raises(DownloadError) as error:
        get_weights(get_source("slowfast-8x8-r50-kinetics400"), tmp_path / "s.pkl")
    for part in (
        "no route to host",
        "SLOWFAST_8x8_R50.pkl by other means",
        str(tmp_path / "s.pkl"),
    ):
        assert part in str(error.value)


@needs_videos
@pytest.mark.skipif(not I3D.is_file(), reason="needs scripts/weights.py get i3d-rgb-kinetics400")
def test_the_real_kinetics_weights_know_arm_wrestling():
    spec = get_arch("rgb_I3D64f")
    model = create_model(spec.name, 400).eval()
    report = load_weights(model, I3D)
    assert (report.missing, report.unexpected) == ([], [])
    video = SHARED / "data" / "clips" / "arm_wrestling.mp4"
    (numbers,) = single_clip(280, spec.frames)
    assert numbers.tolist() == list(range(109, 173))
    frames = itertools.islice(read_frames(video, spec.input.resize), numbers[0] - 1, numbers[-1])
    clip = CenterCrop(spec.input.crop)(np.stack([frame[..., ::-1] for frame in frames]))
    with torch.inference_mode():
        inputs = normalization(spec)(torch.from_numpy(np.ascontiguousarray(clip))[None])
        probabilities = model(inputs).softmax(dim=1)[0]
    classes = get_model_weights("s3d").DEFAULT.meta["categories"]
    best = int(probabilities.argmax())
    print(classes[best], float(probabilities[best]))
    assert classes[best] == "arm wrestling"
    assert probabilities[best] >= 0.99
