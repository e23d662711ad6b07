"""The decoder: OpenCV's pixels, its own memory, and what it refuses."""

import cv2
import numpy as np
import pytest

from datasets.files import DataError
from datasets.sources.reader import JpegDecoder


def picture(height: int = 61, width: int = 83) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray, *flags: int) -> bytes:
    return cv2.imencode(".jpg", image, list(flags))[1].tobytes()


FORMS = {
    "usual": [],
    "not subsampled": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "poor": [cv2.IMWRITE_JPEG_QUALITY, 10],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("grey_file", "grey"), [(False, False), (True, False), (True, True)])
def test_pixels_are_opencvs(form, grey_file, grey):
    image = picture()[..., 0] if grey_file else picture()
    data = jpeg(image, *FORMS[form])
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    decoded = JpegDecoder(grey)(memoryview(data), "a")
    assert np.array_equal(decoded, expected.reshape(decoded.shape))
    assert decoded.shape == (61, 83, 1 if grey else 3)


def test_an_image_of_the_wanted_shape_is_written_there():
    decode, out = JpegDecoder(), np.zeros((61, 83, 3), np.uint8)
    expected = decode(jpeg(picture()), "a").copy()
    assert np.shares_memory(decode(jpeg(picture()), "a", out), out)
    assert np.array_equal(out, expected)
    other = decode(jpeg(picture(30, 40)), "a", out)
    assert other.shape == (30, 40, 3) and np.array_equal(out, expected)


def test_other_formats_go_to_opencv():
    _, data = cv2.imencode(".png", picture())
    out = np.zeros((61, 83, 3), np.uint8)
    assert np.array_equal(JpegDecoder()(data.tobytes(), "a", out), picture()[..., ::-1])
    assert np.array_equal(out, picture()[..., ::-1])


def test_an_exif_orientation_is_obeyed_as_opencv_does():
    data = jpeg(picture())
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # turn to the right
    exif = b"Exif\0\0" + tiff
    data = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    assert JpegDecoder()(data, "a").shape == (83, 61, 3)


@pytest.mark.parametrize(("least", "shape"), [((42, 31), (31, 42)), ((43, 31), (61, 83))])
def test_scaled_decoding_halves_what_is_twice_as_large(least, shape):
    decoded = JpegDecoder(least=least)(jpeg(picture()), "a")
    assert decoded.shape == (*shape, 3)


def test_scaled_decoding_stays_close_to_resizing():
    image = picture(256, 340)
    whole = cv2.resize(JpegDecoder()(jpeg(image), "a"), (170, 128))
    scaled = JpegDecoder(least=(170, 128))(jpeg(image), "a")
    difference = np.abs(whole.astype(int) - scaled)
    assert scaled.shape == whole.shape and 0 < difference.mean() < 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], "x.jpg is a truncated JPEG"),
        (lambda data: b"", "x.jpg is not a readable image"),
        (lambda data: b"\xff\xd8 nothing \xff\xd9", "x.jpg is not a readable image"),
    ],
)
def test_what_is_refused(spoil, message):
    with pytest.raises(DataError, match=message):
        JpegDecoder()(spoil(jpeg(picture())), "x.jpg")
