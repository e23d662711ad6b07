"""Video files: exact frame numbers, the folders' pictures within a tolerance, readable errors."""

import itertools
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from datasets import create_dataset
from datasets.files import DataError
from datasets.preparation import Preparation
from datasets.prepare.extract import extract
from datasets.records import VideoRecord
from datasets.sources import videos as video_reader
from datasets.sources.choose import FOLDERS, VIDEOS, choose_source
from datasets.sources.folders import FrameNames
from datasets.sources.videos import Decoder, VideoReader, frame_times, read_frames
from tests.conftest import SHARED, TinyDataset, needs_videos

COUNT = 60


def write_video(path: Path, gop: int = 12, codec: str = "h264", **options: str) -> list[np.ndarray]:
    """A drifting texture with B-frames; every frame carries its number as brightness."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 160, (16, 24, 3), dtype=np.uint8), (192, 128))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 128, 96, "yuv420p", gop
        for number in range(COUNT):
            picture = np.roll(ground, number, axis=1)[:96, :128] + np.uint8(number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return in_order(path)


def in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_numbers(path: Path, frames: list[np.ndarray], choices: list[list[int]]) -> None:
    kept = Decoder(path, len(frames))  # goes forth and back
    for numbers, decoder in itertools.product(choices, (None, kept)):
        decoder = decoder or Decoder(path, len(frames))
        decoded = list(decoder.frames(numbers))
        assert len(decoded) == len(numbers)
        for number, image in zip(numbers, decoded, strict=True):
            assert np.array_equal(image, frames[number - 1]), number


CHOICES = [[1], [2, 3], [12, 13, 14], [13], [30, 31], [60], [5, 6, 40, 41], list(range(20, 45))]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "h264", {"bf": "3"}),
        ("a.mkv", "h264", {"bf": "2", "x264-params": "open-gop=1"}),
        ("a.avi", "mpeg4", {}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
    ],
)
def test_seeking_gives_what_decoding_in_order_gives(tmp_path, name, codec, options):
    frames = write_video(tmp_path / name, codec=codec, **options)
    check_numbers(tmp_path / name, frames, CHOICES)


def test_it_does_seek(tmp_path, monkeypatch):
    frames = write_video(tmp_path / "a.mp4", bf="3")
    decoder = Decoder(tmp_path / "a.mp4", len(frames))
    assert len(list(decoder.frames([2, 3, 30, 31]))) == 4
    rewound = []
    monkeypatch.setattr(Decoder, "_rewind", rewound.append)
    assert len(list(decoder.frames([5, 6, 40, 41, 60]))) == 5 and not rewound


@pytest.mark.parametrize("count", [COUNT, COUNT - 1])  # the second is not what time stamps say
def test_clips_in_turn_are_decoded_in_one_pass(tmp_path, monkeypatch, count):
    """With one key frame, or without trusted time stamps, a long video would take squared time."""
    frames = write_video(tmp_path / "a.mp4", gop=COUNT, bf="0")
    opened, rewind = [], Decoder._rewind
    monkeypatch.setattr(Decoder, "_rewind", lambda self: (opened.append(1), rewind(self)))
    decoder = Decoder(tmp_path / "a.mp4", count)
    for start in range(1, 51, 10):
        numbers = list(range(start, start + 10))
        for number, image in zip(numbers, decoder.frames(numbers), strict=True):
            assert np.array_equal(image, frames[number - 1])
    assert len(opened) == 1


def test_time_stamps_that_do_not_number_the_frames_are_not_trusted(tmp_path, monkeypatch):
    frames = write_video(tmp_path / "a.mp4", bf="3")
    times, keys = frame_times(tmp_path / "a.mp4")
    assert len(times) == COUNT and len(keys) == COUNT // 12
    shifted = times + 1
    monkeypatch.setattr(video_reader, "frame_times", lambda path: (shifted, keys))
    check_numbers(tmp_path / "a.mp4", frames, [[30, 31], [5, 6, 40, 41]])


@needs_videos
@pytest.mark.parametrize(
    "name",
    ["clips/arm_wrestling.mp4", "clips/flip_pancake.mkv", "ut_interaction/*/set1_17_3_0.avi"],
)
def test_real_videos_have_exact_numbers(name):
    (path,) = (SHARED / "data").glob(name)
    frames = in_order(path)
    last = len(frames)
    check_numbers(path, frames, [[last], list(range(last // 2, last // 2 + 5)), [3, last - 9]])


def test_clips_are_the_folders_within_the_jpeg_loss(tmp_path):
    toy = TinyDataset(tmp_path)
    write_video(toy.frames / "c/v.mp4", bf="2")
    preparation = Preparation(340, 256, 95, "none")
    extract(read_frames(toy.frames / "c/v.mp4", (340, 256)), toy.frames, "c/v", preparation)
    toy.write_lists("val", [("c/v", COUNT, 0)])
    splits = [
        create_dataset("toy", 1, "rgb", toy.settings, toy.frames, ("val",), source=kind)
        for kind in (FOLDERS, VIDEOS)
    ]
    for size in ((340, 256), (170, 128)):
        numbers = np.array([1, 40, 41, 41, 60])
        folder, video = (s.source.reader(size).read(s.val[0], numbers) for s in splits)
        assert folder.shape == video.shape
        assert np.abs(folder.astype(int) - video).mean() < 1.5


def test_videos_are_chosen_where_there_is_nothing_else(tmp_path):
    toy = TinyDataset(tmp_path)
    write_video(toy.frames / "c/v.mp4")
    for modality in ("rgb", "flow"):
        (toy.lists).mkdir(parents=True, exist_ok=True)
        (toy.lists / f"val_{modality}_split1.txt").write_text(f"c/v {COUNT} 0\n")
    split = create_dataset("toy", 1, "rgb", toy.settings, toy.frames, ("val",))
    assert split.source.kind == VIDEOS and "video files" in str(split.source)
    with pytest.raises(DataError, match="no frame folder"):
        create_dataset("toy", 1, "flow", toy.settings, toy.frames, ("val",))
    with pytest.raises(DataError, match="flow cannot be read from video files"):
        create_dataset("toy", 1, "flow", toy.settings, toy.frames, ("val",), source=VIDEOS)
    (toy.lists / "val_rgb_split1.txt").write_text(f"c/v {COUNT} 0\nc/w 5 0\n")
    with pytest.raises(DataError, match=r"val_rgb_split1.txt:2: no video .*c/w"):
        create_dataset("toy", 1, "rgb", toy.settings, toy.frames, ("val",))


def test_a_video_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    root, record = tmp_path / "videos", VideoRecord("a", 5, 0, "list:1")
    root.mkdir()
    (tmp_path / "elsewhere.mp4").write_bytes(b"")
    (root / "a.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    source = choose_source(root, FrameNames(), "rgb", record)
    assert source.kind == VIDEOS
    with pytest.raises(DataError, match="list:1: 'a' is a link out of"):
        source.check([record])


def test_errors_name_line_video_and_file(tmp_path):
    write_video(tmp_path / "v.mp4")
    reader = VideoReader(tmp_path, (64, 48))
    with pytest.raises(DataError, match=r"l:3: 'v': .*v.mp4 ends before frame 61"):
        reader.read(VideoRecord("v", 80, 0, "l:3"), np.arange(50, 70))
    with pytest.raises(DataError, match=r"l:3: 'absent': no video"):
        reader.read(VideoRecord("absent", 80, 0, "l:3"), np.arange(1, 3))
    (tmp_path / "bad.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[:3000])
    with pytest.raises(DataError, match=r"l:4: 'bad': decoding .*bad.mp4 failed after frame 0"):
        reader.read(VideoRecord("bad", COUNT, 0, "l:4"), np.arange(1, 3))


def test_a_video_of_absurd_size_is_refused(tmp_path):
    write_video(tmp_path / "v.mp4")
    reader = VideoReader(tmp_path, (64, 48), max_pixels=128 * 96 - 1)
    with pytest.raises(DataError, match="l:1: 'v': .*claims 128x96 pixels; at most 12,287"):
        reader.read(VideoRecord("v", COUNT, 0, "l:1"), np.arange(1, 3))
    with av.open(str(tmp_path / "huge.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 9000, 8000, "gray"
        picture = np.zeros((8000, 9000), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="claims 9000x8000 pixels; at most 64,000,000"):
        list(read_frames(tmp_path / "huge.mov", (64, 48)))
