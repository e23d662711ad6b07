"""Frame folders: finding, checking and decoding images."""

import cv2
import numpy as np
import pytest

from datasets import create_dataset
from datasets.files import DataError
from datasets.records import VideoRecord
from datasets.sources.folders import FrameNames, count_images
from datasets.sources.frames import FrameReader, check_record
from datasets.sources.reader import JpegDecoder
from tests.conftest import TinyDataset

FOLDER = "a #(1) [b]"


@pytest.fixture
def toy(tmp_path):
    dataset = TinyDataset(tmp_path)
    dataset.add_video(FOLDER, label=1, count=20)
    return dataset


def record(count: int, folder: str = FOLDER) -> VideoRecord:
    return VideoRecord(folder, count, 1, "list.txt:7")


def reader(toy, modality, names=None) -> FrameReader:
    return FrameReader(toy.frames, names or FrameNames(), modality, (85, 64))


def image(path) -> np.ndarray:
    return cv2.imread(str(path))


def test_rgb_is_rgb_resized_bilinearly(toy):
    out = reader(toy, "rgb").read(record(20), np.array([3, 1]))
    assert out.shape == (2, 64, 85, 3) and out.dtype == np.uint8
    for frame, number in zip(out, (3, 1), strict=True):
        source = image(toy.frames / FOLDER / f"img_{number:05d}.jpg")
        expected = cv2.resize(source, (85, 64), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        assert np.array_equal(frame, expected)


def test_repeated_frames_are_decoded_once(toy, monkeypatch):
    decoded = []
    real = JpegDecoder.__call__
    monkeypatch.setattr(JpegDecoder, "__call__", lambda *a: decoded.append(1) or real(*a))
    out = reader(toy, "rgb").read(record(20), np.array([1, 2, 1, 2, 1]))
    assert len(decoded) == 2
    assert np.array_equal(out[0], out[2]) and not np.array_equal(out[0], out[1])


@pytest.mark.parametrize("suffix", ["", ".jpg"])
@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101", "anything"])
def test_flow_is_found_with_and_without_extension(tmp_path, dataset, suffix):
    toy = TinyDataset(tmp_path, dataset)
    toy.add_video("v", label=0, count=5, flow_suffix=suffix)
    for part in ("train", "val"):
        toy.write_lists(part, [("v", 5, 0)])
    split = create_dataset(dataset, 1, "flow", toy.settings, toy.frames)
    assert split.val[0].count == 4
    out = reader(toy, "flow", split.source.names).read(split.val[0], np.array([1, 4]))
    assert out.shape == (2, 64, 85, 2)


def test_channels_of_flow_are_x_and_y(toy):
    for axis, value in (("x", 10), ("y", 200)):
        cv2.imwrite(
            str(toy.frames / FOLDER / f"flow_{axis}_00002.jpg"), np.full((48, 64), value, np.uint8)
        )
    out = reader(toy, "flow").read(record(19), np.array([2]))
    assert out[0, 30, 40].tolist() == [10, 200]


def test_truncated_and_unreadable_images_name_video_line_and_file(toy):
    path = toy.frames / FOLDER / "img_00004.jpg"
    data = path.read_bytes()
    assert image(path) is not None
    path.write_bytes(data[: len(data) // 2])
    assert cv2.imread(str(path)) is not None  # decoders fill the rest with grey
    with pytest.raises(DataError, match=r"list.txt:7: 'a #\(1\) \[b\]'.*img_00004.*truncated"):
        reader(toy, "rgb").read(record(20), np.array([4]))
    for content in (b"", b"not an image"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="img_00004.jpg is not a readable image"):
            reader(toy, "rgb").read(record(20), np.array([4]))
    path.unlink()
    with pytest.raises(DataError, match="lacks rgb image 4 of 20"):
        reader(toy, "rgb").read(record(20), np.array([4]))


def test_trailing_bytes_are_no_truncation(toy):
    path = toy.frames / FOLDER / "img_00004.jpg"
    path.write_bytes(path.read_bytes() + b"\0" * 10)
    reader(toy, "rgb").read(record(20), np.array([4]))


def test_counts_are_checked_against_the_disk(toy):
    names = FrameNames()
    assert check_record(record(20), toy.frames, names, "rgb") == record(20)
    assert check_record(record(15), toy.frames, names, "rgb") == record(15)
    with pytest.raises(DataError, match=r"list.txt:7.* 21 rgb images.* has 20"):
        check_record(record(21), toy.frames, names, "rgb")
    with pytest.raises(DataError, match="no frame folder"):
        check_record(record(3, "absent"), toy.frames, names, "rgb")


def test_flow_one_image_short_of_the_frames_works(toy):
    names = FrameNames()
    assert check_record(record(20), toy.frames, names, "flow") == record(19)
    assert check_record(record(19), toy.frames, names, "flow") == record(19)
    with pytest.raises(DataError, match=r"should have 21 flow images.* has 19"):
        check_record(record(21), toy.frames, names, "flow")


@pytest.mark.parametrize("count", [20, 19])
def test_different_counts_of_x_and_y_are_an_error(toy, count):
    (toy.frames / FOLDER / "flow_y_00019.jpg").unlink()
    with pytest.raises(DataError, match="19 x and 18 y flow images"):
        check_record(record(count), toy.frames, FrameNames(), "flow")


def test_count_images(toy):
    folder = toy.frames / FOLDER
    (folder / "img_notes.txt").write_text("")
    assert count_images(folder, FrameNames(), "rgb") == [20]
    assert count_images(folder, FrameNames(), "flow") == [19, 19]
    assert count_images(folder / "absent", FrameNames(), "flow") == [0, 0]
