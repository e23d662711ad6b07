"""An explanation as a short film: the clip, Grad-CAM over it, and where in time one is."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import matplotlib.pyplot as plt
import numpy as np

from datasets.files import written_whole
from engine.explaining.pictures import Shown, draw_losses, headline, heat_over
from engine.explaining.reasons import Explanation

SIDE = 400  # pixels: height of a picture
BANNER, CHART = 56, 150  # pixels above and below the pictures
SHORTEST = 4.0  # seconds: a shorter clip is slowed down to last so long
DPI = 100


def film_explanation(shown: Shown, found: Explanation, names: Sequence[str], path: Path) -> None:
    """Writes the MP4 (H.264, or MPEG-4 where PyAV has no encoder for that): a frame for each of the
    clip's, whole or not at all."""
    width = round(SIDE * shown.frames.shape[2] / shown.frames.shape[1] / 2) * 2
    page, lines = _page(shown, found, names, width)
    pairs = zip(shown.pictures, heat_over(shown.pictures, found.gradcam), strict=True)
    rate = min(shown.rate or 25.0, len(shown.frames) / SHORTEST)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with written_whole(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, Fraction(rate).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = *page.shape[:2], "yuv420p"
        stream.options = {"crf": "18"} if codec == "libx264" else {"qscale": "3"}
        for line, pair in zip(lines, pairs, strict=True):
            picture = page.copy()
            large = [cv2.resize(own, (width, SIDE), interpolation=cv2.INTER_CUBIC) for own in pair]
            picture[BANNER : BANNER + SIDE] = np.hstack(large)
            picture[BANNER + SIDE + 6 : -38, line : line + 2] = (0, 0, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _page(
    shown: Shown, found: Explanation, names: Sequence[str], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """What stays the same, uint8 (height, 2 * width, 3), and at which column each frame's time is.

    The title stands above room for two pictures, the bars of occlusion below it.
    """
    size = np.array([2 * width, BANNER + SIDE + CHART])  # pixels
    figure = plt.figure(figsize=size / DPI, dpi=DPI)
    left, right = 60, 20
    text = headline(shown, found, names)
    points = min(15.0, 1.75 * (2 * width - left) / len(text))
    figure.text(0.02, 1 - BANNER / 2 / size[1], text, fontsize=points, va="center")
    place = (left, 38, size[0] - left - right, CHART - 50) / np.tile(size, 2)
    axes = figure.add_axes(place, xlim=shown.span)
    draw_losses(axes, found)
    axes.set_xlabel(f"{shown.axis}; bars: nats lost without them", fontsize=8)
    figure.canvas.draw()
    page = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    lines = np.linspace(left, size[0] - right - 2, len(shown.frames)).round().astype(int)
    return page, lines
