"""What video files say of their frames, and what becomes of it."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.files import DataError
from datasets.preparation import Preparation, read_preparation, start_preparation
from datasets.prepare.jobs import record_facts
from datasets.sources.facts import VideoFacts, measure
from tests.conftest import SHARED, needs_videos

CLIPS = {
    "arm_wrestling.mp4": (28.0, (340, 256), 280),
    "flip_pancake.mkv": (30.0, (426, 240), 310),
    "several_shots.mp4": (29.97, (426, 240), 300),
    "corrupted.mp4": (10.0, (1280, 720), 50),
}


def write_timed(path: Path, times: list[int], size: tuple[int, int] = (64, 48)) -> None:
    """A video whose frames are shown at `times`, in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for place, time in enumerate(times):
            image = np.full((size[1], size[0], 3), place % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@needs_videos
@pytest.mark.parametrize("name", CLIPS)
def test_real_videos(name):
    fps, size, frames = CLIPS[name]
    facts = VideoFacts(fps, size, changing=False, frames=frames)
    assert measure(SHARED / "data/clips" / name) == facts


@pytest.mark.parametrize(
    ("times", "fps", "changing"),
    [
        ([40 * n for n in range(50)], 25, False),
        ([40 * n for n in range(60) if n % 30 != 7], 24.6, False),  # two frames were dropped
        ([20 * n for n in range(50)] + [1000 + 100 * n for n in range(50)], 99 / 5.9, True),
    ],
)
def test_frame_rates_that_hold_and_that_change(tmp_path, times, fps, changing):
    write_timed(tmp_path / "v.mkv", times)
    facts = measure(tmp_path / "v.mkv")
    assert facts.fps == pytest.approx(fps, rel=0.02) and facts.changing is changing


def test_what_is_no_video_says_why(tmp_path):
    (tmp_path / "v.mp4").write_text("not a video")
    with pytest.raises(DataError, match="Invalid data"):
        measure(tmp_path / "v.mp4")


def test_the_record_holds_the_median_rate_and_counts_and_says_them_once(tmp_path):
    asked = Preparation(flow="none")
    start_preparation(tmp_path, asked)
    facts = [VideoFacts(30.0, (640, 480), False)] * 5 + [VideoFacts(None, (100, 100), False)]
    facts += [VideoFacts(15.0, (480, 640), False, 63), VideoFacts(29.97, (640, 480), True, 12)]
    recorded = record_facts(tmp_path, asked, facts)
    assert read_preparation(tmp_path).remarks() == recorded.remarks()
    assert (recorded.fps, recorded.decoded, recorded.videos) == (30.0, "640x480", 8)
    turned, changing, other, short = recorded.remarks().values()
    assert short.startswith("2 of 8 videos have fewer than the 64 frames")
    assert turned.startswith("1 of 8 videos are higher than wide and are stretched to 340x256")
    assert changing.startswith("1 of 8 videos change their frame rate")
    assert other.startswith("1 of 8 videos have another frame rate than 30 a second")
    start_preparation(tmp_path, asked)  # what the videos were is no other way to make frames
    assert read_preparation(tmp_path).fps == 30.0
    assert str(recorded) == str(asked)
