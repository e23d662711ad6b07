"""A test's memory does not depend on a video's length."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT

# A network that costs nothing: what is measured is reading, cropping and collecting.
SCORE = """
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from datasets.records import VideoRecord
from datasets.sampling import multi_clip
from datasets.sources.folders import USUAL_NAMES
from datasets.sources.frames import FrameReader
from engine.testing.score import score_videos
from engine.testing.stream import frame_clips
from engine.testing.token_order import TimeOrder
from models import get_arch

spec = get_arch("rgb_tiny3D16f")
records = [VideoRecord("v", int(sys.argv[2]), 0, "list:1")]
reader = FrameReader(Path(sys.argv[1]), USUAL_NAMES, "rgb", (340, 256))
stream = SimpleNamespace(
    split=SimpleNamespace(class_names=["a", "b", "c"], val=records),
    model=SimpleNamespace(classify=lambda x, order: x[:, 0, 0, 0].float()),
    encode=lambda x: x,
    device=torch.device("cpu"),
    prepare=lambda views: views,
    order=TimeOrder(),
    batch_size=2,
)
clips = frame_clips(records, reader, spec, multi_clip, True, "plain", 0, [0])
((_, scores, by_clip, error),) = score_videos(stream, clips)
assert not error and len(by_clip) == len(multi_clip(records[0].count, 16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(frames, count: int) -> int:
    """The largest resident set of a process that tests a video of so many frames, in kB."""
    command = [sys.executable, "-c", SCORE, str(frames), str(count)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout.split()[-1])


@pytest.mark.slow
def test_20000_frames_take_the_memory_of_280(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "img_00001.jpg"), image)
    for number in range(2, 20_001):
        (folder / f"img_{number:05d}.jpg").symlink_to(folder / "img_00001.jpg")
    assert peak(tmp_path, 20_000) < 1.05 * peak(tmp_path, 280)
