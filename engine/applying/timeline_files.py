"""A timeline as JSON, CSV, subtitles, a plot above a film strip, and a video with labels."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import av
import cv2
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.files import DataError, write_lines
from engine.applying.footage import Footage
from engine.applying.timeline import Timeline
from engine.config import TimelineRules
from engine.files import write_json
from engine.plots import save_figure

STRIP = 12  # pictures of a film strip
DRAWN = 8  # classes of a plot
OVERLAY_WIDTH = 1280  # pixels of an overlay's width
COLOURS = plt.get_cmap("tab10").colors


def write_timeline_json(
    path: Path, name: str, timeline: Timeline, rules: TimelineRules, settings: dict
) -> None:
    """Source, classes, rules, segments, and the probabilities in the middle of each second."""
    write_json(
        path,
        {"source": name, "seconds": round(float(timeline.bounds[-1]), 3)}
        | settings
        | {
            "classes": list(timeline.classes),
            "rules": asdict(rules),
            "segments": [
                {
                    "label": timeline.classes[s.label],
                    "start": round(s.start, 3),
                    "end": round(s.end, 3),
                    "probability": round(s.score, 4),
                }
                for s in timeline.segments
            ],
            "probabilities": timeline.at(_middle_seconds(timeline)).round(4).tolist(),
        },
    )


def write_timeline_csv(path: Path, timeline: Timeline) -> None:
    """A line a second: in its middle, the action and every class's probability."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["second", "action", *timeline.classes])
    middles = _middle_seconds(timeline)
    for second, row in zip(middles, timeline.at(middles), strict=True):
        action = timeline.label_at(second)
        name = timeline.classes[action.label] if action else ""
        writer.writerow([int(second), name, *(f"{p:.4f}" for p in row)])
    write_lines(path, out.getvalue().splitlines())


def write_subtitles(path: Path, timeline: Timeline) -> None:
    """Segments as SubRip (.srt), which players show over the video."""
    lines = []
    for number, segment in enumerate(timeline.segments, 1):
        text = f"{timeline.classes[segment.label]} {segment.score:.0%}"
        lines += [str(number), f"{_stamp(segment.start)} --> {_stamp(segment.end)}", text, ""]
    write_lines(path, lines)


def plot_timeline(path: Path, name: str, timeline: Timeline, footage: Footage) -> None:
    """Each class's probability over time, the actions, and a film strip; of the classes with
    actions and those that come nearest, `DRAWN` at most. A source that cannot be read twice has
    no film strip."""
    length = timeline.bounds[-1] - timeline.bounds[0]
    strip = list(_pictures_at(footage, timeline.bounds[0] + length * _middles(STRIP)))
    figure, (top, bars, film) = plt.subplots(
        3, 1, figsize=(11, 5), height_ratios=(5, 0.7, 1.3), layout="constrained"
    )
    # probabilities
    order = np.argsort(-timeline.probabilities.max(axis=0), kind="stable")
    named = {s.label for s in timeline.segments}
    drawn = sorted(order, key=lambda label: label not in named)[:DRAWN]
    centres = (timeline.bounds[1:] + timeline.bounds[:-1]) / 2
    colour_of = {label: COLOURS[place % 10] for place, label in enumerate(drawn)}
    for label in drawn:
        values = timeline.probabilities[:, label]
        top.plot(centres, values, color=colour_of[label], label=timeline.classes[label])
    top.set(ylim=(0, 1.02), ylabel="probability", title=name)
    top.grid(alpha=0.3)
    top.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    # actions
    for s in timeline.segments:
        bars.axvspan(s.start, s.end, color=colour_of.get(s.label, "grey"), alpha=0.85)
        if s.end - s.start > length / 25:
            label = timeline.classes[s.label]
            bars.text((s.start + s.end) / 2, 0.5, label, ha="center", va="center", clip_on=True)
    bars.set(yticks=[], ylabel="action", xlabel="seconds", ylim=(0, 1))
    for axes in (top, bars):
        axes.set_xlim(timeline.bounds[0], timeline.bounds[-1])
    top.set_xticklabels([])
    # film strip
    film.axis("off")
    if strip:
        film.imshow(np.concatenate([_thumbnail(picture) for picture in strip], axis=1))
        film.set_aspect("auto")
    save_figure(figure, path)


def write_overlay(path: Path, timeline: Timeline, footage: Footage) -> None:
    """The video with the action, and bars for the three most probable classes, on every frame.

    H.264 in MP4, without sound, at most `OVERLAY_WIDTH` pixels wide, whole or not at all.
    """
    if not footage.source.seekable:
        raise DataError(f"{footage.source.name}: --overlay reads a video twice: give a file")
    work = path.with_name(f".{path.name}.unfinished.mp4")
    try:
        with av.open(str(work), "w", format="mp4") as container:
            stream = None
            for seconds, picture in footage:
                shown = _shrunk(picture)
                if stream is None:
                    rate = round(footage.rate * 1000) / 1000
                    stream = container.add_stream("libx264", rate=int(round(rate)) or 25)
                    stream.height, stream.width = shown.shape[:2]
                    stream.pix_fmt = "yuv420p"
                shown = cv2.resize(shown, (stream.width, stream.height))
                frame = av.VideoFrame.from_ndarray(_labelled(shown, timeline, seconds), "rgb24")
                for packet in stream.encode(frame):
                    container.mux(packet)
            if stream is not None:
                for packet in stream.encode():
                    container.mux(packet)
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def _labelled(picture: np.ndarray, timeline: Timeline, seconds: float) -> np.ndarray:
    height, width = picture.shape[:2]
    size = max(11, height // 18)
    font = ImageFont.load_default(size)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    action = timeline.label_at(seconds)
    (row,) = timeline.at(np.array([seconds]))
    name = timeline.classes[action.label] if action else ""
    text = f"{_stamp(seconds)[3:8]}  {name}"
    draw.rectangle((0, 0, width, round(1.6 * size)), fill=(0, 0, 0, 140))
    draw.text((size // 2, size // 4), text, font=font, fill="white")
    most = np.argsort(-row, kind="stable")[:3]
    small = ImageFont.load_default(max(10, size * 3 // 4))
    for place, label in enumerate(most):
        y = height - (len(most) - place) * size - size // 3
        draw.rectangle((0, y, width // 3, y + size - 2), fill=(0, 0, 0, 110))
        end = max(1, round(width / 3 * float(row[label])))
        draw.rectangle((0, y, end, y + size - 2), fill=(43, 108, 176, 200))
        text = f"{row[label]:.2f} {timeline.classes[label]}"
        draw.text((size // 3, y), text, font=small, fill="white")
    return np.asarray(image)


def _shrunk(picture: np.ndarray) -> np.ndarray:
    """At most OVERLAY_WIDTH wide, with even sides, as the codec needs."""
    height, width = picture.shape[:2]
    factor = min(1.0, OVERLAY_WIDTH / width)
    size = [max(2, round(side * factor) // 2 * 2) for side in (width, height)]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _pictures_at(footage: Footage, times: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures at some times of a source that can be read twice."""
    if footage.source.seekable:
        for seconds in times:
            pictures = iter(Footage(footage.source, start=float(seconds)))
            yield from (
                picture for _, picture in [next(pictures, (0, None))] if picture is not None
            )
            pictures.close()


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (160, 120), interpolation=cv2.INTER_AREA)


def _middles(number: int) -> np.ndarray:
    """The middles of `number` equal parts of 0..1."""
    return (np.arange(number) + 0.5) / number


def _middle_seconds(timeline: Timeline) -> np.ndarray:
    """The middle of each second that has begun half a second before the end, or of the first."""
    return np.arange(0.5, max(timeline.bounds[-1], 0.6))


def _stamp(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"
