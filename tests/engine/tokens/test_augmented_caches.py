"""Caches of augmented training views: those of the training's epochs, and no others."""

import numpy as np
import pytest
import torch

from datasets import DataError, create_dataset
from datasets.clips import ClipDataset
from engine import UsageError, data
from engine.config import AugmentConfig, DataConfig
from engine.tokens.cache import open_cache
from models import create_model
from scripts import cache_tokens
from video_transforms import PLAIN

FLAGS = ["--rand-augment", "9", "--random-erasing", "0.5", "--color-jitter", "0.4"]


def make(tiny, folder, *more, arch="rgb_tiny3D16f") -> None:
    flags = ["--arch", arch, "--weights", "none", "--views", "2", "--no-ten-crop"]
    flags += ["--seed", "3", "--cache", str(folder), *more]
    assert cache_tokens.main([*tiny.flags, *flags]) == 0


@torch.inference_mode()
def test_training_views_are_augmented_as_in_those_epochs(tiny, tmp_path):
    make(tiny, tmp_path / "plain", "--workers", "0")
    make(tiny, tmp_path / "changed", "--workers", "2", *FLAGS)
    plain, changed = (open_cache(tmp_path / name) for name in ("plain", "changed"))
    assert plain.metadata["augmentation"] is None
    assert changed.metadata["augmentation"] == {
        "rand_augment": 9,
        "random_erasing": 0.5,
        "color_jitter": 0.4,
    }
    # the test's views are not
    for mine, theirs in zip(plain.val.tokens, changed.val.tokens, strict=True):
        assert np.array_equal(mine, theirs)
    # the training's are
    torch.manual_seed(3)
    model = create_model("rgb_tiny3D16f", 3).eval()
    split = create_dataset(tiny.name, 1, "rgb", tiny.settings, tiny.frames)
    reader = data.frame_reader(model.spec, split, DataConfig(tiny.name))
    transform = data.training_transform(model.spec, PLAIN)
    clips = ClipDataset(split.train, reader, 16, transform, training=True, seed=3)
    augment = data.augmentation(model.spec, AugmentConfig(9, 0.5, 0.4), seed=3)
    normalize = data.normalization(model.spec)
    for epoch in range(2):
        clips.set_epoch(epoch)
        for video in range(len(clips)):
            tokens = model.encode(normalize(augment(clips[video][0], epoch, video)))[0]
            theirs = torch.from_numpy(np.array(changed.train.tokens[video][epoch])).float()
            torch.testing.assert_close(theirs, tokens, rtol=2e-3, atol=2e-3)
            assert not np.array_equal(plain.train.tokens[video][epoch], theirs.half())


def test_a_cache_is_resumed_with_its_own_flags_alone(tiny, tmp_path):
    make(tiny, tmp_path, *FLAGS)
    file = tmp_path / "train" / "00001.npy"
    content = file.read_bytes()
    file.unlink()
    for flags in ([], FLAGS[:4]):
        with pytest.raises(DataError, match="different in augmentation"):
            make(tiny, tmp_path, *flags)
    assert not file.exists()
    make(tiny, tmp_path, *FLAGS)
    assert file.read_bytes() == content


def test_flow_is_refused_before_any_work(tiny, tmp_path):
    with pytest.raises(UsageError, match="--rand-augment changes"):
        make(tiny, tmp_path / "flow", "--rand-augment", "3", arch="flow_tiny3D16f")
    assert not (tmp_path / "flow").exists()
