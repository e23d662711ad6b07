"""Videos, flow, extraction and splitting: what a preparation is made of."""

import os
import re

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings

from datasets.files import DataError
from datasets.flow.engines import decode_flow
from datasets.preparation import (
    RECORD_FILE,
    UNFINISHED,
    Preparation,
    is_finished,
    read_preparation,
    start_preparation,
)
from datasets.prepare.collect import (
    Video,
    check_video,
    check_videos,
    find_videos,
    read_csv,
    split_at_random,
    split_by_pattern,
)
from datasets.prepare.extract import extract
from datasets.sources.videos import read_frames
from tests.datasets.flow.test_engines import shifted, textured
from tests.mutations import mutated

SMALL = Preparation(width=48, height=32, flow="dis", bound=10)


def write_video(path, frames: int, rotation: int = 0, size=(64, 48)) -> None:
    """A video of white left halves on black; `rotation` goes into its display matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[:, : size[0] // 2] = 255
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())


def test_videos_decode_to_the_asked_size(tmp_path):
    write_video(tmp_path / "v.avi", 7)
    frames = list(read_frames(tmp_path / "v.avi", (30, 20)))
    assert len(frames) == 7
    assert frames[0].shape == (20, 30, 3) and frames[0].dtype == np.uint8
    assert frames[0][:, :12].mean() > 230 and frames[0][:, 18:].mean() < 25


@pytest.mark.parametrize(("rotation", "white"), [(90, "bottom"), (-90, "top"), (180, "right")])
def test_phone_videos_are_turned_upright(tmp_path, rotation, white):
    write_video(tmp_path / "v.mp4", 3, rotation)
    frame = next(iter(read_frames(tmp_path / "v.mp4", (40, 40)))).mean(axis=2)
    halves = {
        "top": frame[:16],
        "bottom": frame[24:],
        "left": frame[:, :16],
        "right": frame[:, 24:],
    }
    assert max(halves, key=lambda half: halves[half].mean()) == white


def test_broken_videos_say_why(tmp_path):
    write_video(tmp_path / "v.avi", 30)
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("text.mp4", "empty.mp4"):
        with pytest.raises(DataError, match="decoding failed after frame 0"):
            list(read_frames(tmp_path / name, (30, 20)))
    with pytest.raises(DataError, match="No such file"):
        list(read_frames(tmp_path / "absent.mp4", (30, 20)))


def pictures(count: int) -> list[np.ndarray]:
    image = textured(32, 48)
    return [cv2.cvtColor(shifted(image, n, 0), cv2.COLOR_GRAY2BGR) for n in range(count)]


def test_extraction_writes_n_frames_and_one_flow_less(tmp_path):
    assert extract(pictures(6), tmp_path, "c/v", SMALL) == 6
    names = sorted(path.name for path in (tmp_path / "c/v").iterdir())
    expected = [f"flow_{axis}_{n:05d}.jpg" for axis in "xy" for n in range(1, 6)]
    assert names == expected + [f"img_{n:05d}.jpg" for n in range(1, 7)]
    assert is_finished(tmp_path / "c/v", SMALL)
    x = cv2.imread(str(tmp_path / "c/v/flow_x_00002.jpg"), cv2.IMREAD_GRAYSCALE)
    assert decode_flow(np.median(x[8:24, 12:36]), 10) == pytest.approx(1, abs=0.3)


def test_an_interrupted_extraction_leaves_no_folder(tmp_path):
    def breaking():
        yield from pictures(3)
        raise DataError("the end")

    with pytest.raises(DataError, match="the end"):
        extract(breaking(), tmp_path, "v", SMALL)
    assert not (tmp_path / "v").exists()
    assert not list((tmp_path / UNFINISHED).rglob("*.jpg"))


def test_an_incomplete_folder_is_not_finished_and_is_replaced(tmp_path):
    start_preparation(tmp_path, SMALL)
    extract(pictures(4), tmp_path, "v", SMALL)
    (tmp_path / "v" / "flow_y_00003.jpg").unlink()
    assert not is_finished(tmp_path / "v", SMALL)
    extract(pictures(4), tmp_path, "v", SMALL)
    assert is_finished(tmp_path / "v", SMALL)


def test_a_single_frame_has_no_flow(tmp_path):
    with pytest.raises(DataError, match="has 1 frames; at least 2"):
        extract(pictures(1), tmp_path, "v", SMALL)
    assert extract(pictures(1), tmp_path, "v", Preparation(48, 32, flow="none")) == 1


def test_frames_made_in_two_ways_are_not_mixed(tmp_path):
    assert read_preparation(tmp_path) is None
    start_preparation(tmp_path, SMALL)
    start_preparation(tmp_path, SMALL)
    assert read_preparation(tmp_path) == SMALL
    with pytest.raises(DataError, match="bound 10.*bound 20"):
        start_preparation(tmp_path, Preparation(width=48, height=32))
    (tmp_path / "preparation.json").write_text("{")
    with pytest.raises(DataError, match="cannot read"):
        read_preparation(tmp_path)


def test_split_by_pattern():
    videos = ["kick/set1_1.avi", "kick/set2_1.avi", "hug/other.avi"]
    parts = split_by_pattern(videos, "set1_*", "set2_*")
    assert parts == dict(zip(videos, ["train", "val", None], strict=True))
    with pytest.raises(DataError, match="--val 'set3_\\*' matches no video"):
        split_by_pattern(videos, "set1_*", "set3_*")
    with pytest.raises(DataError, match="matches both"):
        split_by_pattern(videos, "set*", "set2_*")


GROUPS = re.compile(r"_g(\d+)_")


def test_random_splits_keep_groups_together():
    videos = [f"c/v_g{group:02d}_{i}.avi" for group in range(10) for i in range(4)]
    parts = split_at_random(videos, 0.3, GROUPS, seed=3)
    assert sum(part == "val" for part in parts.values()) == 12
    for group in range(10):
        assert len({parts[v] for v in videos if f"_g{group:02d}_" in v}) == 1
    assert parts == split_at_random(videos, 0.3, GROUPS, seed=3)
    assert parts != split_at_random(videos, 0.3, GROUPS, seed=4)
    alone = split_at_random(videos, 0.5, None, seed=0)
    assert sum(part == "val" for part in alone.values()) == 20


def test_random_splits_keep_what_known_names_put_together():
    videos = [f"hug/set1_{n}_{sequence}_1.avi" for sequence in range(10) for n in range(3)]
    parts = split_at_random(videos, 0.3, None, seed=0)
    assert sum(part == "val" for part in parts.values()) == 9
    for sequence in range(10):
        assert len({parts[v] for v in videos if v.endswith(f"_{sequence}_1.avi")}) == 1


def test_loose_videos_are_told_where_to_go(tmp_path):
    (tmp_path / "loose.avi").touch()
    with pytest.raises(DataError, match="the 1 videos in the folder itself need a folder for each"):
        find_videos(tmp_path)


def test_splits_that_cannot_be():
    with pytest.raises(DataError, match="one group of videos"):
        split_at_random(["a/v1", "a/v2"], 0.5, re.compile("v"), 0)
    with pytest.raises(DataError, match="a single video"):
        split_at_random(["a/v1"], 0.5, None, 0)


def test_groups_of_alternatives():
    """What the brackets of the other alternative would hold is no part of the group's name."""
    videos = [f"c/{name}.avi" for name in ("a_seq1", "b_seq1", "v_g1_x", "v_g1_y")]
    parts = split_at_random(videos, 0.5, re.compile(r"_g(\d)_|seq(\d)$|_g(\d)"), seed=0)
    assert parts[videos[2]] == parts[videos[3]]


HOSTILE_RECORDS = [
    *(b"\xff\xfe{}", b"[" * 100_000, b'{"width":' * 100_000, b"", b"null", b"[]", b"{", b'"x"'),
    *(b'{"width": -5}', b'{"width": "1e9"}', b'{"width": 1e9}', b'{"width": 1000000000}'),
    *(b'{"width": ' + b"9" * 5000 + b"}", b'{"height": true}', b'{"quality": 1000}'),
    *(b'{"quality": null}', b'{"flow": "x\\u001b[31m"}', b'{"flow": 3}', b'{"flow": "dis\\n"}'),
    *(b'{"bound": 0}', b'{"bound": NaN}', b'{"bound": 1e999}', b'{"depth": 3}', b'{"width": {}}'),
]


@pytest.mark.parametrize("content", HOSTILE_RECORDS, ids=range(len(HOSTILE_RECORDS)))
def test_records_of_other_types_and_bounds_are_refused(tmp_path, content):
    (tmp_path / RECORD_FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*preparation.json"):
        read_preparation(tmp_path)


def test_records_with_fewer_settings_or_whole_numbers_are_read(tmp_path):
    (tmp_path / RECORD_FILE).write_bytes(b'\n {"width": null, "height": null, "bound": 15}')
    assert read_preparation(tmp_path) == Preparation(None, None, bound=15.0)


def test_a_record_that_is_no_file_is_refused(tmp_path):
    record = tmp_path / RECORD_FILE
    for make in (os.mkfifo, os.mkdir, lambda p: p.symlink_to("none"), lambda p: p.symlink_to(p)):
        make(record)
        with pytest.raises(DataError, match="preparation.json"):
            read_preparation(tmp_path)
        record.rmdir() if record.is_dir() else record.unlink()


def test_mutations_of_a_record(tmp_path):
    SMALL.write(tmp_path)

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(mutated((tmp_path / RECORD_FILE).read_bytes()))
    def check(content: bytes) -> None:
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / RECORD_FILE).write_bytes(content)
        try:
            read = read_preparation(tmp_path / "x")
        except DataError:
            return
        assert 1 <= read.quality <= 100 and 0 < read.bound <= 1000 and "\x1b" not in read.flow

    check()


def test_mutations_of_a_csv(tmp_path):
    """Whatever is read names paths inside the folders, or is left out with a reason."""
    path, root = tmp_path / "videos.csv", tmp_path / "videos"
    (root / "hug").mkdir(parents=True)
    for name in ("a.mp4", "b c.mp4"):
        (root / "hug" / name).touch()
    valid = b"video,class,part\nhug/a.mp4,hug,train\nhug/b c.mp4,,val\n"

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(mutated(valid))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            videos = read_csv(path)
            check_videos(root, videos)
        except DataError:
            return
        for video in videos:
            try:
                check_video(root, video)
            except DataError:
                continue
            inside = (tmp_path / "frames" / video.folder).resolve()
            assert inside.parent.parent == tmp_path / "frames"

    check()


@pytest.mark.parametrize(
    "content",
    [
        b"video\n\xff\xfe\n",
        b"\xff\xfev\0i\0d\0e\0o\0",
        b"",
        b"\0",
        b"video\n" + b"x" * 200_000,
        b'video\n"' + b"x\n" * 100_000,
        b"video,class\na/b.mp4,\0\n",
    ],
    ids=range(7),
)
def test_hostile_csv_files(tmp_path, content):
    (tmp_path / "videos.csv").write_bytes(content)
    with pytest.raises(DataError, match="videos.csv"):
        read_csv(tmp_path / "videos.csv")


def test_a_csv_with_a_byte_order_mark(tmp_path):
    (tmp_path / "videos.csv").write_bytes(b"\xef\xbb\xbfvideo,part\r\nhug/a.mp4,train\r\n")
    assert read_csv(tmp_path / "videos.csv") == [Video("hug/a.mp4", "hug", "train")]
