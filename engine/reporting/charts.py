"""Geometry of a report's line charts: numbers -> what an SVG polyline and its axes need."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 420, 220  # of a chart, in its own units
_STEPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 6, 8, 10)  # tops of an axis, times a power of ten
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 28  # margins


@dataclass(frozen=True)
class LineChart:
    """A chart's parts.

    Attributes:
        title: what is drawn, with its unit.
        lines: (label, an SVG polyline's points, its last value as text).
        x_ticks, y_ticks: (place, text).
    """

    title: str
    lines: Sequence[tuple[str, str, str]]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


def line_chart(
    title: str, curves: Mapping[str, Sequence[tuple[int, float]]], top: float | None = None
) -> LineChart:
    """A chart of curves, label -> (x, y) by rising x; the y axis runs from 0 to `top`."""
    points = [point for curve in curves.values() for point in curve]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    top = top or _round_up(max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / max(1, last - first) if last > first else 0.5
        along = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return round(along, 1), round(_TOP + (1 - y / top) * (_HEIGHT - _TOP - _BOTTOM), 1)

    lines = [
        (label, " ".join("{},{}".format(*place(*point)) for point in curve), f"{curve[-1][1]:.4g}")
        for label, curve in curves.items()
    ]
    steps = sorted({round(first + (last - first) * part / 4) for part in range(5)})
    return LineChart(
        title,
        lines,
        [(place(x, 0)[0], str(x)) for x in steps],
        [(place(first, top * part / 4)[1], f"{top * part / 4:g}") for part in range(5)],
    )


def _round_up(value: float) -> float:
    """The next number whose quarters are short."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * step for step in _STEPS if power * step >= value), value)
