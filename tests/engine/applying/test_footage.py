"""Sources and their pictures: rates, damage, pipes that are silent, rubbish."""

import http.server
import os
import subprocess
import sys
import threading
from functools import partial

import av
import numpy as np
import pytest

from datasets.files import DataError
from datasets.sources.videos import at_rate
from engine.applying.footage import Footage
from engine.applying.predictor import load_predictor
from engine.applying.sources import VideoSource, find_sources
from tests.conftest import SHARED, needs_videos
from tests.engine.applying.made import noisy, save_network, write_video
from tests.scripts.test_bad_videos import write_changing_size


def seconds_of(path, fps=None, start=0.0, deadline=5.0):
    footage = Footage(VideoSource(str(path), "file"), fps, start, deadline)
    return [seconds for seconds, _ in footage], footage


@pytest.mark.parametrize(("fps", "wanted"), [(25, 50), (12.5, 25), (50, 100), (24.7, 50), (30, 60)])
def test_pictures_are_resampled_to_the_wanted_rate(tmp_path, fps, wanted):
    path = write_video(tmp_path / "a.mp4", noisy(50), 25)
    seconds, footage = seconds_of(path, fps)
    assert abs(len(seconds) - wanted) <= 1
    rate = 25 if fps in (25, 24.7) else fps
    assert footage.rate == rate and bool(footage.notes) == (rate != 25)
    np.testing.assert_allclose(seconds, np.arange(len(seconds)) / rate, atol=1e-3)


def test_resampling_shows_at_each_time_what_was_shown_then():
    shown = [(0.0, 0), (0.1, 1), (0.5, 2), (0.52, 3), (1.0, 4)]
    found = [value for _, value in at_rate(iter(shown), 10)]
    assert found == [0, 1, 1, 1, 1, 3, 3, 3, 3, 3, 4]


def test_a_changing_rate_becomes_a_constant_one(tmp_path):
    times = [*np.arange(20) / 10, *(2 + np.arange(40) / 40)]
    path = write_video(tmp_path / "a.mkv", noisy(60), 25, times)
    seconds, footage = seconds_of(path, 20)
    assert abs(len(seconds) - 60) <= 1 and footage.rate == 20
    assert "resampled to 20" in footage.notes[0]


@pytest.mark.parametrize("fps", [None, 10])
@pytest.mark.parametrize("start", [0.5, 1.96, 2.03])
def test_starting_later_gives_the_same_pictures(tmp_path, fps, start):
    path = write_video(tmp_path / "a.mp4", noisy(90), 25)
    whole = [(s, p) for s, p in Footage(VideoSource(str(path), "file"), fps) if s >= start - 1e-6]
    later = list(Footage(VideoSource(str(path), "file"), fps, start))
    assert [s for s, _ in later] == [s for s, _ in whole]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(whole, later, strict=True))


def test_a_damaged_end_is_used_up_to_there(tmp_path):
    path = write_video(tmp_path / "a.avi", noisy(60, (320, 240)), 25)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seconds, footage = seconds_of(path)
    assert 10 < len(seconds) < 60


@needs_videos
def test_a_damaged_real_video_says_where_it_ends():
    seconds, footage = seconds_of(SHARED / "data" / "clips" / "corrupted.mp4")
    assert len(seconds) == 28 and "damaged after picture 28" in footage.notes[0]


def grey(path, bits):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, f"gray{'16le' if bits == 16 else ''}"
        for value in range(5):
            array = np.full((32, 32), value * 40 * (257 if bits == 16 else 1), f"uint{bits}")
            frame = av.VideoFrame.from_ndarray(array, f"gray{'16le' if bits == 16 else ''}")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_and_deep_pictures_become_eight_bit_rgb(tmp_path, bits):
    grey(tmp_path / "a.mkv", bits)
    pictures = [p for _, p in Footage(VideoSource(str(tmp_path / "a.mkv"), "file"))]
    assert [p.shape for p in pictures] == [(32, 32, 3)] * 5
    assert [int(p[5, 5, 1]) for p in pictures] == pytest.approx([0, 40, 80, 120, 160], abs=2)


def test_what_is_no_video_says_so_by_name(tmp_path):
    audio = tmp_path / "sound.wav"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    (tmp_path / "notes.txt").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "zeros.mp4").write_bytes(bytes(10_000))
    for name in ("sound.wav", "notes.txt", "empty.mp4", "zeros.mp4"):
        with pytest.raises(DataError, match=name):
            list(Footage(VideoSource(str(tmp_path / name), "file")))


def test_a_pipe_that_never_delivers_is_given_up(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    ((source,), faults) = find_sources([str(tmp_path / "pipe")])
    assert source.kind == "pipe" and not faults
    with pytest.raises(DataError, match="pipe.*nothing came for 1 second"):
        list(Footage(source, deadline=1))


def test_a_pipe_gives_what_the_file_gives(tmp_path):
    path = write_video(tmp_path / "a.mkv", noisy(40), 25)
    os.mkfifo(tmp_path / "pipe")
    data = path.read_bytes()
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True).start()
    piped = [p for _, p in Footage(VideoSource(str(tmp_path / "pipe"), "pipe"), deadline=5)]
    filed = [p for _, p in Footage(VideoSource(str(path), "file"))]
    assert len(piped) == 40
    assert all(np.array_equal(a, b) for a, b in zip(piped, filed, strict=True))


def test_standard_input_is_a_source(tmp_path):
    path = write_video(tmp_path / "a.mkv", noisy(40), 25)
    code = (
        "from engine.applying.footage import Footage\n"
        "from engine.applying.sources import VideoSource\n"
        "print(sum(1 for _ in Footage(VideoSource('-', 'pipe'))))"
    )
    with open(path, "rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True)
    assert done.stdout.split() == [b"40"], done.stderr


def test_sources_are_found_in_order_each_once_and_rubbish_is_named(tmp_path):
    for name in ("b.mp4", "a.mp4", "sub/c.MKV"):
        write_video(tmp_path / name.lower().replace("mkv", "mkv"), noisy(3))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path), str(tmp_path / "a.mp4"), str(tmp_path / "b*"), "3", "rtsp://x/y", "-"]
    words += [str(tmp_path / "empty"), str(tmp_path / "gone"), str(tmp_path / "z*")]
    sources, faults = find_sources(words)
    names = [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "sub/c.mkv")]
    assert [s.name for s in sources] == [*names, "camera 3", "rtsp://x/y", "-"]
    assert [s.kind for s in sources] == ["file"] * 3 + ["camera", "url", "pipe"]
    assert len(faults) == 3 and "no video file" in faults[0] and "gone" in faults[1]
    assert "matches no file" in faults[2]


def test_rotation_and_changing_sizes_are_shown_as_players_do(tmp_path):
    turned = tmp_path / "turned.mp4"
    with av.open(str(turned), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        for picture in noisy(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    assert {p.shape for _, p in Footage(VideoSource(str(turned), "file"))} == {(64, 48, 3)}
    write_changing_size(tmp_path / "sizes.mpg")
    shapes = [p.shape for _, p in Footage(VideoSource(str(tmp_path / "sizes.mpg"), "file"))]
    assert set(shapes) == {(48, 64, 3), (96, 128, 3)}
    predictor = load_predictor(save_network(tmp_path / "a.pth"))
    pictures = (p for _, p in Footage(VideoSource(str(tmp_path / "sizes.mpg"), "file")))
    assert np.isfinite(predictor.predict(pictures)).all()


def test_a_url_is_a_source(tmp_path):
    write_video(tmp_path / "a.mp4", noisy(20))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        ((source, gone), _) = find_sources([f"{url}/a.mp4", f"{url}/b.mp4"])
        assert source.kind == "url" and sum(1 for _ in Footage(source, deadline=5)) == 20
        with pytest.raises(DataError, match="b.mp4"):
            list(Footage(gone, deadline=5))
        server.shutdown()
