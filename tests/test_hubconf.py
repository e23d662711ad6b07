"""torch.hub's entry points: every row of the table, weights, the predictor."""

import numpy as np
import torch

import hubconf
from models import list_archs
from tests.conftest import ROOT
from tests.engine.exporting.networks import trained

ARCH = "rgb_tiny3D16f_bert10_FRMB"


def load(name, **options):
    return torch.hub.load(str(ROOT), name, source="local", **options)


def test_every_row_is_an_entry_point_and_nothing_else_but_the_predictor():
    found = {k: v for k, v in vars(hubconf).items() if callable(v) and not k.startswith("_")}
    assert found.keys() == {"predictor", *list_archs()}  # what torch.hub.list shows
    assert all("num_classes" in found[name].__doc__ for name in list_archs())


def test_networks_are_new_or_start_from_a_file(tmp_path):
    network = trained(ARCH, classes=4).model
    path = tmp_path / "net.pth.tar"
    torch.save({"arch": ARCH, "state_dict": network.state_dict()}, path)
    loaded = load(ARCH, num_classes=4, weights=str(path))
    clips = torch.randn(1, *network.spec.clip_shape)
    with torch.inference_mode():
        assert not loaded.training and torch.equal(loaded(clips), network(clips))
    assert load(ARCH, num_classes=7).fc_action.out_features == 7


def test_the_predictor_opens_what_was_shared_or_trained(tmp_path):
    network = trained(ARCH, classes=4).model
    path = tmp_path / "net.pth.tar"
    torch.save({"arch": ARCH, "state_dict": network.state_dict()}, path)
    predictor = load("predictor", path=str(path), device="cpu", clips="single", ten_crop=False)
    frames = np.random.default_rng(0).integers(0, 256, (20, 72, 96, 3), dtype=np.uint8)
    probabilities = predictor.predict(frames)
    assert probabilities.shape == (4,) and abs(probabilities.sum() - 1) < 1e-6
