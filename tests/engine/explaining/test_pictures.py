"""Pictures and films of an explanation: what they show, how many frames, and of which colours."""

import av
import cv2
import numpy as np
import pytest

from engine.explaining.film import BANNER, SIDE, film_explanation
from engine.explaining.pictures import (
    Shown,
    draw_explanation,
    headline,
    heat_over,
    percent,
    runners_up,
)
from engine.explaining.reasons import Explanation
from engine.plots import flow_colours

NAMES = ["left", "right", "a $ in the name, and a very long one " * 3]
SPANS = np.stack([np.arange(0, 16, 2), np.arange(2, 18, 2)], axis=1)


def explanation(**attention: np.ndarray) -> Explanation:
    """Class 0, whose Grad-CAM lights the top left of frames 4 to 7."""
    gradcam = np.zeros((16, 40, 60), np.float32)
    gradcam[4:8, :20, :30] = 7
    return Explanation(
        target=0,
        probabilities=np.array([0.7, 0.2999, 0.0001], np.float32),
        attention={path: own.astype(np.float32) for path, own in attention.items()},
        no_attention="" if attention else "a network has no BERT head, so no attention weights",
        spans=SPANS,
        lost=np.array([0, 1, 5, -2, 0, 0.5, 0, 0], np.float32),
        gradcam=gradcam,
    )


def shown(channels: int = 3, rate: float | None = 10.0, label: int | None = None) -> Shown:
    frames = np.full((16, 40, 60, channels), 128, np.uint8)
    return Shown("videos/some.mp4", frames, 2.0, rate, label)


def test_the_axis_of_time_is_the_videos():
    assert shown().span == (2.0, 3.6) and shown().axis == "seconds of the video"
    assert shown(rate=None).span == (2.0, 18.0) and shown(rate=None).axis == "frame of the video"


def test_words_for_people():
    assert [percent(p) for p in (1.0, 0.9996, 0.9994, 0.0006, 0.0004)] == [
        *("over 99.9 %", "over 99.9 %", "99.9 %", "0.1 %", "under 0.1 %")
    ]
    found = explanation()
    assert (
        headline(shown(), found, NAMES) == "left, 70.0 %" == headline(shown(label=0), found, NAMES)
    )
    assert headline(shown(label=1), found, NAMES).endswith("the video's class is right, 30.0 %")
    assert runners_up(found, NAMES) == "right 30.0 %"


def test_flow_is_white_where_nothing_moves_and_a_hue_for_each_direction():
    flow = np.full((1, 5, 1, 2), 128, np.uint8)
    for row, motion in enumerate([(255, 128), (0, 128), (128, 255), (128, 0)], 1):
        flow[0, row, 0] = motion
    still, right, left, down, up = flow_colours(flow)[0, :, 0].astype(int)
    assert still.min() > 250
    assert right.argmax() == 0 and right[1:].max() < 20  # red
    assert left.argmin() == 0 and left[1:].min() > 230  # cyan
    assert len({tuple(c) for c in (still, right, left, down, up)}) == 5
    assert flow_colours(np.full((1, 4, 4, 2), 127, np.uint8)).min() > 225  # no motion at all


def test_heat_covers_what_the_map_lights_and_leaves_the_rest_grey():
    pictures = np.full((16, 40, 60, 3), (200, 100, 0), np.uint8)
    heat = heat_over(pictures, explanation().gradcam).astype(int)
    outside = heat[0, 0, 0]
    assert (heat[:4] == outside).all() and (heat[5, 30:] == outside).all()
    assert np.ptp(outside) < 200 and (heat[4:8, :20, :30] != outside).any(axis=-1).all()
    nothing = heat_over(pictures, np.zeros((16, 40, 60), np.float32))
    assert (nothing == nothing[0, 0, 0]).all()


@pytest.mark.parametrize(
    ("attention", "more"),
    [
        ({}, 0),
        ({"": np.full((8, 8), 0.1)}, 1),
        ({"": np.full((1, 4), 0.1)}, 1),
        ({"slow": np.full((8, 8), 0.1), "fast": np.full((8, 32), 0.03)}, 2),
    ],
)
@pytest.mark.parametrize("channels", [3, 2])
def test_the_picture_has_a_row_for_each_part(tmp_path, attention, more, channels):
    path = tmp_path / "why.png"
    draw_explanation(shown(channels, label=1), explanation(**attention), NAMES, path)
    image = cv2.imread(str(path))
    low = cv2.imread(str(_without_attention(tmp_path)))
    assert image.shape[1] == low.shape[1]
    assert (image.shape[0] > low.shape[0]) == (more > 0)
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3)[::3].tolist()}
    assert (0xB0, 0x6C, 0x2B) in colours and (0x30, 0x30, 0xC5) in colours  # for and against
    assert list(tmp_path.glob("*.tmp")) == []


def _without_attention(folder):
    draw_explanation(shown(), explanation(), NAMES, folder / "none.png")
    return folder / "none.png"


@pytest.mark.parametrize(("channels", "rate"), [(3, 10.0), (2, None), (3, 2.0)])
def test_the_film_has_a_frame_for_each_of_the_clip_and_shows_the_heat_in_time(
    tmp_path, channels, rate
):
    path = tmp_path / "why.mp4"
    film_explanation(shown(channels, rate), explanation(), NAMES, path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        seconds = 16 / float(stream.average_rate)
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
    width = SIDE * 60 // 40
    assert frames.shape[0] == 16 and frames.shape[2:] == (2 * width, 3)
    assert seconds == pytest.approx(8.0 if rate == 2.0 else 4.0)  # never below four seconds
    # the right picture's lit quarter, while it is lit and before
    quarter = frames[:, BANNER + 20 : BANNER + 150, width + 20 : width + 250].astype(int)
    change = np.abs(quarter - quarter[0]).mean(axis=(1, 2, 3))
    assert (change[4:8] > 15).all() and (change[[1, 2, 12, 15]] < 3).all()
    # the line that shows the time moves to the right
    chart = frames[:, BANNER + SIDE + 12, 70:-20].astype(int).sum(axis=2)
    places = chart.argmin(axis=1)
    assert (np.diff(places) > 0).all()
