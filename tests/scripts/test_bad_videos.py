"""Preparing files that are no good videos, or odd ones: each is used or named, the others done."""

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from scripts.data import doctor, prepare_videos
from tests.conftest import SHARED, needs_videos

FLAGS = ["--dataset", "toy", "--width", "48", "--height", "32", "--flow", "none", "-j", "2"]


def write_video(
    path: Path,
    frames: int = 20,
    size: tuple[int, int] = (64, 48),
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
) -> None:
    """A video whose left half is white; `times` in milliseconds, else 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[:, : size[0] // 2] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        container.start_encoding()  # writes a header also where no frame follows
        for number in range(frames):
            image[0, 0] = number % 256
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_changing_size(path: Path) -> None:
    """Two raw MPEG streams of two sizes, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for size in ((64, 48), (128, 96)):
        part = path.with_name(f"part_{size[0]}.m2v")
        write_video(part, 12, size, "mpeg2video")
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.zeros((1, 1024), np.float32)
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def videos(tmp_path) -> Path:
    root = tmp_path / "videos"
    for name in ("set1_good", "set2_good"):
        write_video(root / "hug" / f"{name}.mp4")
    return root


def prepare(tmp_path, *flags) -> tuple[int, str, list[str]]:
    """The exit code, what was printed, and the videos that were done."""
    printed: list[str] = []
    argv = [str(tmp_path / "videos"), *FLAGS, "--frames", str(tmp_path / "frames")]
    argv += ["--settings", str(tmp_path / "settings"), "--train", "set1_*", "--val", "set2_*"]
    code = prepare_videos.main([*argv, *flags], printed.append)
    folders = (tmp_path / "frames/hug").iterdir()
    assert not (tmp_path / "frames/.unfinished").exists()
    return code, "\n".join(printed), sorted(path.name for path in folders)


def test_rubbish_is_named_and_the_good_ones_are_done(videos, tmp_path):
    folder = videos / "hug"
    write_sound(folder / "set1_sound.mp4")
    (folder / "set1_text.mp4").write_text("not a video")
    (folder / "set1_empty.avi").write_bytes(b"")
    (folder / "set1_zeros.mkv").write_bytes(bytes(5000))
    (folder / "set1_folder.mp4").mkdir()
    (folder / "set1_link.mp4").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "set1_pipe.mp4")
    whole = (folder / "set1_good.mp4").read_bytes()
    (folder / "set1_head.mp4").write_bytes(whole[:100])
    cv2.imwrite(str(folder / "set1_picture.jpg"), np.zeros((9, 9), np.uint8))  # no video's ending
    code, said, done = prepare(tmp_path)
    assert code == 1 and done == ["set1_good", "set2_good"]
    reasons = {
        "sound.mp4": "holds no video stream",
        "text.mp4": "Invalid data",
        "empty.avi": "decoding failed after frame 0",
        "zeros.mkv": "decoding failed after frame 0",
        "folder.mp4": "is a folder, not a file",
        "link.mp4": "the link leads to no file",
        "pipe.mp4": "is a pipe, not a file",
        "head.mp4": "decoding failed after frame 0",
    }
    lines = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert len(lines) == len(reasons)
    for name, reason in reasons.items():
        (line,) = (line for line in lines if line.startswith(f"left out: hug/set1_{name}: "))
        assert reason in line


@pytest.mark.parametrize("frames", [0, 1])
def test_too_few_frames(videos, tmp_path, frames):
    write_video(videos / "hug/set1_few.mp4", frames)
    code, said, done = prepare(tmp_path, "--flow", "farneback")
    assert code == 1 and done == ["set1_good", "set2_good"]
    assert "left out: hug/set1_few.mp4: " in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        (".mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        (".mkv", {"codec": "ffv1", "pix_fmt": "gray16le"}),
        (".mkv", {"codec": "ffv1", "pix_fmt": "yuv420p16le"}),
        (".mkv", {"codec": "ffv1", "pix_fmt": "rgb48le"}),
        (".avi", {"codec": "rawvideo", "pix_fmt": "rgb24"}),
    ],
)
def test_pixel_formats_become_plain_pictures(videos, tmp_path, ending, options):
    write_video(videos / f"hug/set1_odd{ending}", **options)
    code, said, done = prepare(tmp_path)
    assert code == 0 and "set1_odd" in done, said
    image = cv2.imread(str(tmp_path / "frames/hug/set1_odd/img_00010.jpg"))
    assert image.shape == (32, 48, 3)
    assert image[4:, :20].min() > 240 and image[4:, 28:].max() < 15


def test_a_changing_size_is_stretched_to_one(videos, tmp_path):
    write_changing_size(videos / "hug/set1_sizes.mpg")
    code, said, done = prepare(tmp_path)
    assert code == 0 and "set1_sizes" in done
    images = sorted((tmp_path / "frames/hug/set1_sizes").glob("img_*"))
    shapes = {cv2.imread(str(path)).shape for path in images}
    assert shapes == {(32, 48, 3)} and len(images) >= 22


def test_shape_length_and_rate_are_said_once_with_counts_by_doctor_too(videos, tmp_path, capsys):
    for name in ("set1_up", "set2_up"):
        write_video(videos / f"hug/{name}.mp4", 70, (48, 80))
    steps = [40 * n for n in range(40)] + [1600 + 160 * n for n in range(40)]
    write_video(videos / "hug/set1_uneven.mkv", 80, times=steps)
    assert prepare(tmp_path)[0] == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    counts = ["2 of 5 videos are higher than wide", "1 of 5 videos change their frame rate"]
    counts += ["1 of 5 videos have another frame rate than 25", "2 of 5 videos have fewer than the"]
    assert len(notes) == len(counts)
    assert all(note.startswith(f"note: {count}") for note, count in zip(notes, counts, strict=True))
    record = json.loads((tmp_path / "frames/preparation.json").read_text())
    assert record["fps"] == 25 and record["videos"] == 5
    lines: list[str] = []
    places = ["--frames", str(tmp_path / "frames"), "--settings", str(tmp_path / "settings")]
    doctor.main(["--dataset", "toy", *places], lines.append)
    for note in notes:
        assert lines.count("  " + note.removeprefix("note: ")) == 1


@needs_videos
def test_a_damaged_end_is_left_out_or_used_up_to_there(videos, tmp_path, capsys):
    shutil.copy(SHARED / "data/clips/corrupted.mp4", videos / "hug/set1_corrupted.mp4")
    code, said, done = prepare(tmp_path)
    assert code == 1 and "set1_corrupted" not in done
    assert "decoding failed after frame 28" in said
    assert "--keep-damaged uses the 28 frames" in said
    for _ in range(2):  # run again, it is said again
        capsys.readouterr()
        code, said, done = prepare(tmp_path, "--keep-damaged")
        assert code == 0 and "set1_corrupted" in done
        err = capsys.readouterr().err
        assert "damaged: hug/set1_corrupted.mp4: 28 of 50 frames are used: " in err
    lists = (tmp_path / "settings/toy/train_rgb_split1.txt").read_text()
    assert "hug/set1_corrupted 28 0\n" in lists


def test_a_file_that_ends_early_without_an_error_is_said(videos, tmp_path, capsys):
    write_video(videos / "hug/set1_long.mkv", 100, (160, 128), "mpeg4")
    path = videos / "hug/set1_cut.avi"
    write_video(path, 100, (160, 128), "mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    code, said, done = prepare(tmp_path, "--keep-damaged")
    assert code == 0 and "set1_cut" in done
    err = capsys.readouterr().err
    assert "damaged: hug/set1_cut.avi: " in err and "of 100 frames are used: " in err
    assert "set1_long" not in err
