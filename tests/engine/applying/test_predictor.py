"""A trained network applied to frames; files of other kinds are refused."""

import numpy as np
import pytest
import torch

from engine import UsageError
from engine.applying.networks import load_network
from engine.applying.predictor import fused_logits, load_predictor
from engine.files import CheckpointError
from engine.metrics import fuse, softmax
from models import create_model
from tests.engine.applying.made import CLASSES, coloured, noisy, save_network, save_sure_network


def test_a_network_knows_its_classes_rate_and_preparation(tmp_path):
    data = {"fps": 30.0, "preparation": {"width": 100, "height": 80, "quality": 90}}
    path = save_network(tmp_path / "run" / "model_best.pth.tar", fingerprint=data, mirror="none")
    for named in (path, path.parent):
        network = load_network(named)
        assert (network.classes, network.fps, network.flip) == (CLASSES, 30.0, "none")
        assert (network.preparation.width, network.preparation.height) == (100, 80)
        assert network.recorded and not network.model.training


def test_a_file_of_the_reference_has_numbered_classes(tmp_path):
    model = create_model("rgb_tiny3D16f", 4)
    state_dict = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"arch": "rgb_tiny3D16f", "state_dict": state_dict}, tmp_path / "a.pth.tar")
    network = load_network(tmp_path / "a.pth.tar")
    assert len(network.classes) == 4 and network.fps is None and not network.recorded


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"arch": "rgb_tiny3D16f", "state_dict": {}}, "no classifier"),
        ({"arch": "rgb_nothing", "state_dict": {"fc_action.bias": torch.zeros(2)}}, "rgb_nothing"),
        ({"arch": 3, "state_dict": {"fc_action.bias": torch.zeros(2)}}, "arch: 3"),
        ({"a": torch.zeros(2)}, "no known kind"),
        ({"features.conv.weight": torch.zeros(2, 3, 1, 1, 1)}, "names no architecture"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"(?s)other.pth.*{message}"):
        load_network(tmp_path / "other.pth")


def test_a_run_without_a_best_model_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="model_best.pth.tar"):
        load_network(tmp_path)


def test_two_streams_are_ranked_as_the_tests_fuse_them():
    rng = np.random.default_rng(0)
    streams = [rng.normal(size=(50, 7)).astype(np.float32) * scale for scale in (1, 20)]
    fused = fused_logits(streams)
    assert np.array_equal(np.argsort(fused), np.argsort(fuse(streams)))
    assert np.array_equal(fused_logits(streams[:1]), streams[0])
    probabilities = softmax(fused)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.max(axis=1).mean() > 0.5  # not the flat ones of sums of unit vectors


def test_networks_of_other_classes_or_modalities_do_not_go_together(tmp_path):
    rgb = save_network(tmp_path / "rgb.pth")
    flow = save_network(tmp_path / "flow.pth", "flow_tiny3D16f", class_names=["a", "b", "c"])
    with pytest.raises(UsageError, match="other classes"):
        load_predictor(rgb, flow)
    with pytest.raises(CheckpointError, match="flow network belongs"):
        load_predictor(rgb, rgb)


def test_flow_is_computed_on_the_fly_with_the_recorded_engine_and_bound(tmp_path):
    settings = {"preparation": {"width": 64, "height": 48, "flow": "farneback", "bound": 5.0}}
    settings["preparation"]["quality"] = 95
    flow = save_network(tmp_path / "flow.pth", "flow_tiny3D16f", fingerprint=settings)
    predictor = load_predictor(save_network(tmp_path / "rgb.pth", "rgb_tiny3D16f"), flow)
    applied = predictor.networks[1]
    assert (applied.network.preparation.flow, applied.network.preparation.bound) == ("farneback", 5)
    pictures = noisy(20)
    images = list(applied.images(pictures))
    assert len(images) == 19 and images[0].shape[2] == 2
    counts = [len(own) for own in predictor._gather(iter(pictures), "a")]
    assert counts == [20, 19]
    still = list(applied.images(pictures[:1] * 18))
    assert np.abs(np.stack(still).astype(int) - 128).max() <= 3
    assert predictor.predict(iter(pictures)).shape == (3,)


def test_a_sure_network_is_sure(tmp_path):
    predictor = load_predictor(save_sure_network(tmp_path / "a.pth"))
    for label in range(3):
        probabilities = predictor.predict(coloured([(label, 40)]))
        assert probabilities.argmax() == label and probabilities.max() > 0.9


@pytest.mark.parametrize("count", [0, 1])
def test_a_video_of_a_frame_or_none_is_refused_by_name(tmp_path, count):
    predictor = load_predictor(save_network(tmp_path / "a.pth"))
    with pytest.raises(UsageError, match="film.mp4 has fewer than 2 frames"):
        predictor.predict(noisy(5)[:count], "film.mp4")


def test_a_video_too_long_for_memory_names_the_timeline(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.applying.predictor.MOST_BYTES", 100_000)
    predictor = load_predictor(save_network(tmp_path / "a.pth"))
    with pytest.raises(UsageError, match="--timeline"):
        predictor.predict(noisy(50), "film.mp4")
