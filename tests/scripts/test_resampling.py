"""Videos of several frame rates become frames of one."""

import pytest

from datasets.files import DataError
from datasets.preparation import read_preparation
from scripts.data import prepare_videos
from tests.engine.applying.made import noisy, write_video


def test_videos_of_several_rates_become_one(tmp_path):
    """The record, the fingerprint and so a checkpoint say which."""
    for name, fps in (("a", 10), ("b", 20)):
        write_video(tmp_path / "videos" / name / f"{name}.mp4", noisy(40), fps)
    flags = ["--dataset", "made", "--frames", tmp_path / "frames", "--settings", tmp_path / "lists"]
    flags += ["--flow", "none", "--train", "a.*", "--val", "b.*", "--workers", 1]
    command = [str(tmp_path / "videos"), *map(str, flags)]
    assert prepare_videos.main([*command, "--fps", "20"]) == 0
    counts = [len(list((tmp_path / "frames" / n / n).glob("*.jpg"))) for n in "ab"]
    assert abs(counts[0] - 80) <= 1 and counts[1] == 40
    preparation = read_preparation(tmp_path / "frames")
    assert preparation.resampled == preparation.fps == 20 and not preparation.other_fps
    for other in (["--fps", "10"], []):
        with pytest.raises(DataError, match="resampled 20"):  # not mixed with others
            prepare_videos.main([*command, *other])
