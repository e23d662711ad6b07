"""Views of a video and their mean."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.testing.score import score_video
from engine.testing.stream import VideoViews
from models import get_arch
from video_transforms import INVERTED, NO_FLIP, PLAIN, flip_clip, views

SPEC = get_arch("flow_tiny3D16f")


def a_video(frames=20, channels=2):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (frames, 64, 85, channels), dtype=np.uint8)
    return images, [np.arange(16), np.arange(4, 20)]


@pytest.mark.parametrize("rule", [PLAIN, INVERTED])
def test_ten_crops_in_order(rule):
    images, clips = a_video()
    found = list(views(images, clips, 56, True, rule))
    assert len(found) == 20
    corners = [(4, 14), (0, 0), (0, 29), (8, 0), (8, 29)]  # centre, then row by row
    for number, clip in enumerate(clips):
        mirrored = flip_clip(images[clip], rule)
        for place, (top, left) in enumerate(corners):
            window = (slice(None), slice(top, top + 56), slice(left, left + 56))
            assert np.array_equal(found[10 * number + place], images[clip][window])
            assert np.array_equal(found[10 * number + 5 + place], mirrored[window])


def test_one_crop_and_no_mirroring():
    images, clips = a_video()
    assert len(list(views(images, clips, 56, False, PLAIN))) == 2
    five = list(views(images, clips, 56, True, NO_FLIP))
    ten = list(views(images, clips, 56, True, PLAIN))
    assert len(five) == 10
    assert all(np.array_equal(a, b) for a, b in zip(five[:5], ten[:5], strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_score_is_the_mean_over_all_views_whatever_the_batch(batch_size):
    images, clips = a_video()
    seen = []

    def model(x, reorder):
        seen.append(len(x))
        return x.mean(dim=(2, 3, 4))

    stream = SimpleNamespace(
        spec=SPEC,
        model=model,
        device=torch.device("cpu"),
        prepare=lambda c: c.permute(0, 4, 1, 2, 3).float(),
        order=None,
        batch_size=batch_size,
    )
    shown = VideoViews(views(images, clips, 56, True, PLAIN), len(clips))
    score, by_clip = score_video(stream, shown)
    means = [v.mean(axis=(0, 1, 2)) for v in views(images, clips, 56, True, PLAIN)]
    np.testing.assert_allclose(score, np.mean(means, 0), rtol=1e-5)
    np.testing.assert_allclose(by_clip, [np.mean(m, 0) for m in (means[:10], means[10:])], 1e-5)
    assert score.dtype == np.float32
    assert sum(seen) == 20 and max(seen) == min(batch_size, 20)
