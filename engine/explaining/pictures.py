"""An explanation as a picture: frames, Grad-CAM, occlusion and attention on one axis of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from engine.explaining.reasons import Explanation
from engine.plots import flow_colours, save_figure

HEAT = "inferno"  # colours of Grad-CAM
FOR, AGAINST = "#2b6cb0", "#c53030"  # colours of spans that speak for the class, and against it
WIDTH, LEFT, RIGHT = 10.0, 1.65, 1.0  # inches: of what lies along time, and beside it
TITLE, FOOT, GAP = 0.85, 0.55, 0.14  # inches: above, below, and between rows


@dataclass(frozen=True)
class Shown:
    """The clip that is explained, as a person sees it.

    Attributes:
        name: of the video.
        frames: uint8 (T, H, W, 3) in RGB order, or flow images (T, H, W, 2): the network's view.
        start: seconds in the video of the first frame; without a rate its number, from 1.
        rate: frames a second; None where it is not known.
        label: the class that the video has, where that is known.
        notes: what reading the video met: another rate, a damaged end.
    """

    name: str
    frames: np.ndarray
    start: float
    rate: float | None
    label: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def span(self) -> tuple[float, float]:
        """Where the clip begins and ends on its axis of time."""
        return self.start, self.start + len(self.frames) / (self.rate or 1)

    @property
    def axis(self) -> str:
        """What that axis says."""
        return "seconds of the video" if self.rate else "frame of the video"

    @property
    def pictures(self) -> np.ndarray:
        """uint8 (T, H, W, 3)."""
        return self.frames if self.frames.shape[3] == 3 else flow_colours(self.frames)


def heat_over(pictures: np.ndarray, gradcam: np.ndarray) -> np.ndarray:
    """Pictures, uint8 (T, H, W, 3), greyed, and Grad-CAM (T, H, W) over them as colours.

    Colour and opacity are the value over the largest of the clip.
    """
    share = gradcam / max(float(gradcam.max()), 1e-12)
    colours = matplotlib.colormaps[HEAT](share)[..., :3] * 255
    grey = pictures.astype(np.float32).mean(axis=3, keepdims=True)
    under = 0.35 * pictures + 0.65 * grey
    opacity = 0.75 * np.sqrt(share)[..., None]
    return ((1 - opacity) * under + opacity * colours).round().astype(np.uint8)


def percent(probability: float) -> str:
    """For people: one that is not quite 0 or 1 is not shown as that."""
    if 0.9995 <= probability:
        return "over 99.9 %"
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else "under 0.1 %"


def headline(shown: Shown, found: Explanation, names: Sequence[str]) -> str:
    """The class that is explained, and, where that is another, the video's own."""
    text = f"{names[found.target]}, {percent(found.probability)}"
    if shown.label is not None and shown.label != found.target:
        own = percent(float(found.probabilities[shown.label]))
        text += f"; the video's class is {names[shown.label]}, {own}"
    return text


def runners_up(found: Explanation, names: Sequence[str]) -> str:
    """The three most probable of the other classes, as far as they are worth a word."""
    others = [k for k in np.argsort(-found.probabilities)[:4] if k != found.target][:3]
    shares = {names[k]: float(found.probabilities[k]) for k in others}
    return ", ".join(f"{name} {percent(p)}" for name, p in shares.items() if p >= 0.0005)


def draw_explanation(shown: Shown, found: Explanation, names: Sequence[str], path: Path) -> None:
    """Writes the PNG."""
    # heights of the rows, inches, from the top
    strip = WIDTH / len(found.spans) * shown.frames.shape[1] / shown.frames.shape[2]
    maps = [max(0.7, min(0.17 * len(own), 2.0)) for own in found.attention.values()]
    heights = [strip, strip, 1.1, *maps]
    total = TITLE + sum(heights) + GAP * len(heights) + (FOOT if maps else FOOT + 0.22)
    width = LEFT + WIDTH + RIGHT
    figure = plt.figure(figsize=(width, total))
    # title
    left = LEFT / width
    figure.text(left, 1 - 0.38 / total, headline(shown, found, names), fontsize=15)
    name = Path(shown.name).name if shown.label is None else shown.name
    below = "   next: ".join(filter(None, (name, runners_up(found, names))))
    figure.text(left, 1 - 0.65 / total, below, color="#555", fontsize=9)
    # a row of axes for each
    rows, top = [], total - TITLE
    for height in heights:
        place = (left, (top - height) / total, WIDTH / width, height / total)
        rows.append(figure.add_axes(place, xlim=shown.span))
        top -= height + GAP
    _draw_strip(rows[0], shown.pictures, shown, found)
    _draw_strip(rows[1], heat_over(shown.pictures, found.gradcam), shown, found)
    draw_losses(rows[2], found)
    for axes, own in zip(rows[3:], found.attention.values(), strict=True):
        extent = (*shown.span, len(own) + 0.5, 0.5)
        axes.imshow(own, "Blues", vmin=0, extent=extent, aspect="auto")
        axes.set(yticks=range(1, len(own) + 1))
        axes.tick_params(axis="y", labelsize=7, length=0)
        _draw_scale(axes, "Blues", float(own.max()), "share")
    _draw_scale(rows[1], HEAT, float(found.gradcam.max()), "logit")
    # what they are
    attention = [f"attention of the\n{path} class token,\nby head" for path in found.attention]
    clip = "the clip" if shown.frames.shape[3] == 3 else "the clip's flow"
    words = [
        clip,
        "Grad-CAM:\nwhere and when",
        "occlusion:\nnats lost\nwithout it",
        *attention,
    ]
    for axes, text in zip(rows, words, strict=True):
        middle = (axes.get_position().y0 + axes.get_position().y1) / 2
        figure.text(left - 0.42 / width, middle, text.replace("  ", " "), ha="right", va="center")
        axes.tick_params(axis="x", labelbottom=axes is rows[-1], labelsize=8)
    rows[-1].set_xlabel(shown.axis, fontsize=9)
    if not maps:
        figure.text(
            left, 0.14 / total, f"attention: {found.no_attention}", color="#555", fontsize=9
        )
    save_figure(figure, path)


def _draw_strip(axes: plt.Axes, images: np.ndarray, shown: Shown, found: Explanation) -> None:
    """The middle frame of each span, side by side, with its time."""
    edges = np.linspace(*shown.span, len(found.spans) + 1)
    for (first, after), left, right in zip(found.spans, edges[:-1], edges[1:], strict=True):
        place = (first + after) // 2
        extent = (left, right, 0, 1)
        axes.imshow(images[place], extent=extent, aspect="auto", interpolation="bilinear")
        time = shown.start + place / (shown.rate or 1)
        digits = 1 if right - left > 0.1 else 2
        text = f"{time:.{digits}f} s" if shown.rate else f"{time:.0f}"
        box = {"facecolor": "black", "alpha": 0.5, "pad": 1.5, "linewidth": 0}
        at = (left + 0.04 * (right - left), 0.05)
        axes.text(*at, text, fontsize=7, color="white", bbox=box)
    axes.vlines(edges[1:-1], 0, 1, color="white", linewidth=2)
    axes.set(xlim=shown.span, ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_scale(axes: plt.Axes, colours: str, highest: float, unit: str) -> None:
    """A colour bar to the right of a row."""
    beside = axes.inset_axes((1.012, 0, 0.012, 1))
    ramp = np.linspace(1, 0, 64)[:, None]
    beside.imshow(ramp, colours, vmin=0, vmax=1, aspect="auto", extent=(0, 1, 0, 1))
    beside.yaxis.tick_right()
    beside.set_xticks([])
    beside.set_yticks((0, 1), ("0", f"{highest:.3g}"), fontsize=8)
    beside.set_ylabel(unit, fontsize=8)
    beside.yaxis.set_label_position("right")


def draw_losses(axes: plt.Axes, found: Explanation) -> None:
    """The score lost without each span: a bar as wide as the span, on axes over the clip's time."""
    begin, end = axes.get_xlim()
    left, right = begin + (end - begin) / found.spans[-1, 1] * found.spans.T
    colours = [FOR if lost >= 0 else AGAINST for lost in found.lost]
    axes.bar(left, found.lost, right - left, align="edge", color=colours, edgecolor="white")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.15)
    axes.set_xlim(begin, end)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
