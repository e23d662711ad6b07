"""The module that is exported does what the tests do: resizing, views, softmax of the mean."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from datasets.preparation import Preparation
from engine.data import normalization
from engine.exporting.check import as_tested
from engine.exporting.clips import made_clips
from engine.exporting.deployed import Deployed, resize_frames
from engine.exporting.export import deploy, file_metadata
from models import create_model
from tests.engine.exporting.networks import trained
from video_transforms import INVERTED, NO_FLIP, PLAIN, views


@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize(
    "height, width, size",
    [
        (240, 426, (340, 256)),
        (256, 340, (170, 128)),
        (256, 340, (171, 128)),
        (720, 1280, (340, 256)),
        (31, 45, (340, 256)),
    ],
)
def test_frames_are_resized_as_opencv_does(height, width, size, channels):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    frames = np.stack([cv2.GaussianBlur(frame, (5, 5), 1.5) for frame in frames])
    found = resize_frames(torch.from_numpy(frames)[None], size)[0].numpy()
    wanted = np.stack([cv2.resize(frame, size) for frame in frames])
    assert found.dtype == np.uint8 and found.shape == wanted.shape
    differs = np.abs(found.astype(int) - wanted)
    half = channels == 2 and (width, height) == (2 * size[0], 2 * size[1])
    assert differs.max() <= 1
    assert (differs > 0).mean() <= (0.13 if half else 0.005)  # OpenCV halves two channels apart


def test_frames_of_the_wanted_size_stay_as_they_are():
    frames = torch.randint(0, 256, (1, 3, 48, 64, 3), dtype=torch.uint8)
    assert torch.equal(resize_frames(frames, (64, 48)), frames)


@pytest.mark.parametrize("flip", [PLAIN, INVERTED, NO_FLIP])
@pytest.mark.parametrize("ten_crop", [True, False])
def test_the_views_are_those_of_the_tests(flip, ten_crop):
    network = create_model("flow_tiny3D16f", 3)
    spec = network.spec
    deployed = Deployed(network, [spec.input.resize], ten_crop, flip)
    clip = made_clips(spec, spec.input.resize, 1)[0]
    wanted = np.stack([*views(clip, spec.input.crop, ten_crop, flip)])
    found = torch.stack(deployed.views(torch.from_numpy(clip)[None]), dim=1)[0].numpy()
    assert len(found) == deployed.crops
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("arch", ["rgb_tiny3D16f_bert10_FRMB", "flow_tiny3D16f"])
def test_probabilities_are_the_softmax_of_the_mean_logits(arch):
    known = trained(arch)
    network, flip = known.model, known.flip
    deployed = Deployed(network, [network.spec.input.resize], True, flip)
    clips = made_clips(network.spec, network.spec.input.resize, 2)
    with torch.inference_mode():
        found = deployed(torch.from_numpy(clips))
        for clip, own in zip(clips, found, strict=True):
            crops = np.stack([*views(clip, network.spec.input.crop, True, flip)])
            logits = network(normalization(network.spec)(torch.from_numpy(crops)))
            torch.testing.assert_close(own, logits.mean(0).softmax(0), atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(found, as_tested(deployed, clips), atol=1e-6)
    assert found.sum(1).allclose(torch.ones(2)) and not found[0].allclose(found[1], atol=1e-3)


def test_a_file_says_all_that_one_needs_to_use_it():
    network = replace(trained("flow_tiny3D16f", 3), preparation=Preparation(bound=15.0))
    deployed = deploy(network, ten_crop=True)
    assert deployed.sizes == (network.spec.input.resize,)  # flow is made of prepared pictures
    metadata = file_metadata(network, deployed)
    assert metadata["classes"] == ["class 0", "class 1", "class 2"]
    assert metadata["input"]["frames"] == 16 and metadata["input"]["channels"] == "flow x, flow y"
    assert metadata["flow"]["engine"] == "dis" and metadata["flow"]["bound"] == 15
    assert metadata["flow"]["frame_size"] == [340, 256]
    assert metadata["frame_rate"] == 25 and metadata["crops"] == 10
    rgb = replace(trained("rgb_tiny3D16f"), preparation=Preparation())
    assert deploy(rgb, False).sizes == ((340, 256), rgb.spec.input.resize)
    assert file_metadata(rgb, deploy(rgb, False))["flow"] is None
