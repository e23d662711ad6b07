"""Estimates: counted frames, measured rates, and the minutes that follow from them."""

import numpy as np
import pytest

from datasets import DataError
from engine.quickstart.rates import Rates, Work, mean_frames, measure_rates
from tests.conftest import SHARED, needs_videos

RATES = Rates(frame=0.01, clip=0.5, video=0.01, start=6.0)


def test_minutes_follow_from_counts_and_rates():
    work = Work(videos=120, train=60, val=60, frames=113, workers=2, rates=RATES)
    assert work.start == pytest.approx(0.1)
    assert work.preparing() == pytest.approx(0.1 + 120 * 113 * 0.01 / 2 / 60)
    # a test video of 113 frames has one whole clip and one that its end fills, and the central one
    assert work.caching(64, views=4) == pytest.approx(0.1 + (60 * 4 + 60 * 3) * 0.5 / 60, rel=0.3)
    assert work.tuning(epochs=180, folds=3) == pytest.approx(0.1 + 180 * 2 * 60 * 0.01 / 60)
    assert work.training(60) > 0.1 + 60 * 60 * 0.01 / 60


@needs_videos
def test_frames_are_counted_in_headers_and_rates_measured():
    clips = SHARED / "data/clips"
    assert mean_frames(clips, ["arm_wrestling.mp4", "flip_pancake.mkv"]) == pytest.approx(295, 0.02)
    assert mean_frames(clips, ["arm_wrestling.mp4", "nothing.mp4"]) == 280
    rates = measure_rates(clips, ["bikes.mp4"], "dis", "rgb_tiny3D16f_bert10", "exact")
    assert np.all(np.array([rates.frame, rates.clip, rates.video]) > 0)
    assert rates.frame < 5 and rates.clip < 30 and rates.video < 5


def test_no_video_to_read_is_told(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert mean_frames(tmp_path, ["a.mp4"]) == 0
    with pytest.raises(DataError, match="none of the first videos in .* can be read"):
        measure_rates(tmp_path, ["a.mp4"], None, "rgb_tiny3D16f_bert10", "exact")
