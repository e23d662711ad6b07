"""Scores of windows over time -> which action happens when: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter1d

from engine.config import TimelineRules


@dataclass(frozen=True)
class Segment:
    """An action: its class's number, from when to when in seconds, and its mean probability."""

    label: int
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Timeline:
    """What happens in a video.

    Attributes:
        classes: names, by number.
        bounds: seconds, (W + 1,): interval i is from bounds[i] to bounds[i + 1].
        probabilities: of the intervals, smoothed, (W, classes).
        segments: the actions, in the order of time.
    """

    classes: tuple[str, ...]
    bounds: np.ndarray
    probabilities: np.ndarray
    segments: tuple[Segment, ...]

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """The probabilities at some times, (len, classes)."""
        places = np.searchsorted(self.bounds, seconds, side="right") - 1
        return self.probabilities[places.clip(0, len(self.probabilities) - 1)]

    def label_at(self, seconds: float) -> Segment | None:
        """The action at a time."""
        return next((s for s in self.segments if s.start <= seconds < s.end), None)


def make_timeline(
    windows: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], rules: TimelineRules
) -> Timeline:
    """Windows -> the timeline of the whole video.

    A window speaks for the time around its centre, half-way to its neighbours' centres; the first
    and the last also for the video's ends.

    Args:
        windows: seconds, (W, 2): from when to when.
        probabilities: (W, classes).
    """
    centres = windows.mean(axis=1)
    inner = (centres[1:] + centres[:-1]) / 2
    bounds = np.concatenate([windows[:1, 0], inner, windows[-1:, 1]])
    step = float(np.median(np.diff(centres))) if len(centres) > 1 else 1.0
    smoothed = smooth(probabilities, round(rules.smoothing / max(step, 1e-6)))
    if rules.shortest is None:  # what a window cannot tell from a cut between two actions
        rules = replace(rules, shortest=float(np.median(np.diff(windows, axis=1))) / 2)
    segments = find_segments(bounds, smoothed, classes, rules)
    return Timeline(tuple(classes), bounds, smoothed, tuple(segments))


def smooth(probabilities: np.ndarray, width: int) -> np.ndarray:
    """The moving average over `width` windows, (W, classes); the ends are repeated."""
    values = np.asarray(probabilities, np.float64)
    return uniform_filter1d(values, width, axis=0, mode="nearest") if width > 1 else values


def find_segments(
    bounds: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], rules: TimelineRules
) -> list[Segment]:
    """Actions by hysteresis: one begins where its probability reaches `rules.enter` and lasts
    while it is above `rules.leave` and no other class reaches `rules.enter` with more.

    Segments of one class with at most `rules.gap` seconds between them become one; then those of
    the background class, and those shorter than `rules.shortest` (a number), are left out.
    """
    found: list[tuple[int, int, int]] = []  # label, first interval, interval after the last
    label, first = -1, 0
    for place, row in enumerate(probabilities):
        best = int(row.argmax())
        other = best != label and row[best] >= rules.enter
        if label >= 0 and (row[label] < rules.leave or other):
            found.append((label, first, place))
            label = -1
        if label < 0 and row[best] >= rules.enter:
            label, first = best, place
    if label >= 0:
        found.append((label, first, len(probabilities)))
    kept = [own for own in found if classes[own[0]] != rules.background]
    merged: list[tuple[int, int, int]] = []
    for own in kept:
        before = merged[-1] if merged else None
        if before and before[0] == own[0] and bounds[own[1]] - bounds[before[2]] <= rules.gap:
            merged[-1] = (own[0], before[1], own[2])
        else:
            merged.append(own)
    segments = [
        Segment(n, float(bounds[a]), float(bounds[b]), float(probabilities[a:b, n].mean()))
        for n, a, b in merged
    ]
    return [s for s in segments if s.end - s.start >= rules.shortest]
