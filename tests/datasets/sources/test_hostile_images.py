"""Images that hang, fill the memory or deceive: each is refused, by name, and soon."""

import resource
import socket
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.doctor import examine, open_checked
from datasets.files import DataError
from datasets.records import VideoRecord
from datasets.sources.folders import FrameNames, list_folder
from datasets.sources.frames import FrameReader, check_record
from datasets.sources.jpeg import ends_early
from tests.conftest import TinyDataset
from tests.datasets.sources.test_jpeg import FORMS, jpeg, picture
from tests.datasets.test_lists import plant_odd_file
from tests.mutations import mutated

RECORD = VideoRecord("v", 3, 0, "list.txt:1")
END = b"\xff\xd9"
PLANES = {"rgb": "img_00002.jpg", "flow": "flow_y_00002.jpg"}


@pytest.fixture
def toy(tmp_path) -> TinyDataset:
    dataset = TinyDataset(tmp_path)
    dataset.add_video("v", 0, 4)
    dataset.write_lists("train", [("v", 4, 0)])
    dataset.write_lists("val", [("v", 4, 0)])
    return dataset


def read(toy: TinyDataset, modality: str = "rgb", **limits) -> np.ndarray:
    reader = FrameReader(toy.frames, FrameNames(), modality, (32, 24), **limits)
    return reader.read(RECORD, np.array([1, 2, 3]))


def claims(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + height.to_bytes(2) + width.to_bytes(2) + data[place + 4 :]


def grey_jpeg() -> bytes:
    return jpeg(picture(48, 64)[..., 0])


def png_of_zeros(width: int, height: int) -> bytes:
    """A large PNG of a few bytes: its header, and too little data."""
    small = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    small[16:24] = width.to_bytes(4) + height.to_bytes(4)
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4)
    return bytes(small)


def halved(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3] + END


HOSTILE = {
    "empty": lambda: b"",
    "text": lambda: b"no image",
    "NULs": lambda: bytes(5000),
    "a JPEG that claims 20000x20000": lambda: claims(grey_jpeg(), 20000, 20000),
    "a JPEG that claims 65500x65500": lambda: claims(grey_jpeg(), 65500, 65500),
    "a JPEG that claims 5000x5000": lambda: claims(grey_jpeg(), 5000, 5000),
    "a JPEG that claims 0x0": lambda: claims(grey_jpeg(), 0, 0),
    "a PNG that claims 40000x40000": lambda: png_of_zeros(40000, 40000),
    "a PNG that claims 2^31": lambda: png_of_zeros(2**31 - 1, 2**31 - 1),
    "a PNG that claims 3000x3000": lambda: png_of_zeros(3000, 3000),
    "a cut JPEG": lambda: grey_jpeg()[:-300],
    "a cut JPEG with an end": lambda: halved(grey_jpeg()),
    "a cut progressive JPEG with an end": lambda: halved(
        jpeg(picture(48, 64)[..., 0], *FORMS["progressive"])
    ),
    "a cut JPEG with an end and more": lambda: halved(grey_jpeg()) + bytes(10),
    "a cut PNG": lambda: cv2.imencode(".png", picture(48, 64))[1].tobytes()[:-40],
    "much smaller than the others": lambda: jpeg(picture(8, 8)[..., 0]),
    "much larger than the others": lambda: jpeg(picture(480, 640)[..., 0]),
}


@pytest.mark.parametrize("modality", PLANES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_is_refused_by_name_without_its_memory(toy, kind, modality):
    (toy.frames / "v" / PLANES[modality]).write_bytes(HOSTILE[kind]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with pytest.raises(DataError, match=f"list.txt:1: 'v': .*{PLANES[modality]}"):
        read(toy, modality)
    assert time.monotonic() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling", "loop", "device", "socket"])
def test_what_is_no_file_is_refused_without_waiting(toy, kind, monkeypatch):
    for name in PLANES.values():
        path = toy.frames / "v" / name
        path.unlink()
        if kind == "socket":
            monkeypatch.chdir(path.parent)  # a socket's path is short
            socket.socket(socket.AF_UNIX).bind(name)
        else:
            plant_odd_file(kind, path)
    for modality in PLANES:
        with pytest.raises(DataError, match="list.txt:1: 'v': "):
            read(toy, modality)
    found = examine(open_checked("toy", toy.settings, toy.frames), True, 1)
    faults = [f for f in found if f.kind == "unreadable"]
    assert len(faults) == 2 and {f.video for f in faults} == {"v"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_doctor_names_a_hostile_image_once(toy, kind):
    (toy.frames / "v" / "img_00002.jpg").write_bytes(HOSTILE[kind]())
    found = examine(open_checked("toy", toy.settings, toy.frames), True, 1)
    found = [f for f in found if f.severity == "error" and f.kind != "train-and-test"]
    much = kind.endswith("the others")
    assert [f.kind for f in found] == ["sizes-mixed" if much else "unreadable"]
    assert "'v'" in found[0].message or "img_00002.jpg" in found[0].message


def test_more_pixels_are_read_where_one_asks_for_them(toy):
    with pytest.raises(DataError, match=r"64x48; at most 0.003 megapixels .*--max-megapixels"):
        read(toy, max_pixels=3000)
    assert read(toy, max_pixels=64 * 48).shape == (3, 24, 32, 3)


def test_flow_has_one_channel(toy):
    path = toy.frames / "v" / PLANES["flow"]
    for suffix in (".jpg", ".png"):
        grey = cv2.imread(str(toy.frames / "v" / "flow_y_00001.jpg"), cv2.IMREAD_GRAYSCALE)
        path.write_bytes(cv2.imencode(suffix, grey)[1].tobytes())
        assert read(toy, "flow").shape == (3, 24, 32, 2)
        path.write_bytes(cv2.imencode(suffix, cv2.merge([grey] * 3))[1].tobytes())
        with pytest.raises(DataError, match=f"{path.name} has 3 channels: flow images are grey"):
            read(toy, "flow")
        found = examine(open_checked("toy", toy.settings, toy.frames), True, 1)
        assert [f.video for f in found if f.kind == "flow-colour"] == ["v"]


def test_a_jpeg_that_ends_early_after_another_fault_is_told_by_its_last_block():
    data = bytearray(jpeg(picture(256, 340)))
    place = data.index(b"\xff\xda") + 40
    data[place : place + 8] = b"\xff\x00" * 4  # codes that there are none of
    assert ends_early(halved(bytes(data)))
    whole = jpeg(picture(256, 340))
    assert not ends_early(whole) and not ends_early(whole[:-2] + bytes(20) + END)
    assert not ends_early(jpeg(np.full((48, 64), 128, np.uint8)))  # truly grey


def test_a_cmyk_jpeg_is_read_as_before(toy):
    path = toy.frames / "v" / "img_00002.jpg"
    Image.fromarray(np.full((48, 64, 4), 100, np.uint8), "CMYK").save(path)
    expected = cv2.resize(cv2.imread(str(path)), (32, 24))[..., ::-1]
    assert np.array_equal(read(toy)[1], expected)


def test_a_number_of_an_image_may_be_any(toy):
    folder = toy.frames / "v"
    (folder / "img_00001.jpg").rename(folder / f"img_{10**12}.jpg")
    (folder / "img_\u0660\u0660\u0660\u0660\u0661.jpg").write_bytes(b"")  # Arabic digits
    (folder / "x\nimg_00001.jpg").write_bytes(b"")
    assert list_folder(folder, FrameNames()).rgb == [2, 3, 4, 10**12]
    found = examine(open_checked("toy", toy.settings, toy.frames), False, 1)
    assert "images 1, 5, 6, 7, 8, ... are missing" in next(
        f.message for f in found if f.kind == "gap"
    )


@pytest.mark.parametrize("name", ["loop", "dangling", "file", "x" * 255 + "/y" * 300])
def test_a_video_that_is_no_folder_is_refused(toy, name):
    if name in ("loop", "dangling"):
        plant_odd_file(name, toy.frames / name)
    elif name == "file":
        (toy.frames / name).write_bytes(b"")
    record = VideoRecord(name, 3, 0, "list.txt:1")
    with pytest.raises(DataError, match="list.txt:1: .*no frame folder|list.txt:1: .* is a link"):
        check_record(record, toy.frames, FrameNames(), "rgb")
    assert list_folder(toy.frames / name, FrameNames()) is None


fuzzed = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALID = {
    "rgb": [jpeg(picture(48, 64)), jpeg(picture(48, 64), *FORMS["progressive"])],
    "flow": [grey_jpeg(), jpeg(picture(48, 64)[..., 0], *FORMS["progressive"])],
}
VALID["rgb"].append(cv2.imencode(".png", picture(48, 64))[1].tobytes())
VALID["flow"].append(cv2.imencode(".png", picture(48, 64)[..., 0])[1].tobytes())


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("modality", PLANES)
@fuzzed
@given(chosen=st.data())
def test_a_damaged_image_is_read_or_refused_in_words(toy, modality, place, chosen):
    path = toy.frames / "v" / PLANES[modality]
    path.write_bytes(chosen.draw(mutated(VALID[modality][place])))
    try:
        images = read(toy, modality)
    except DataError as error:
        assert path.name in str(error)
        return
    assert images.shape == (3, 24, 32, 3 if modality == "rgb" else 2)
