"""Flow images that are wrong, judged by their grey values and by flow computed from the frames.

Grey values alone only give a suspicion: a panning camera moves the centre, a fast scene fills the
range, and a still one is rightly constant. So the flow of a few frame pairs is computed anew, where
there are frames, and the stored flow compared with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

CENTRE = 127.5  # 0 pixels is stored as 128 here and as 127 by others
CENTRE_TOLERANCE = 4.0  # grey levels; sound videos of three engines: up to 0.6
EXTREME = 6  # grey levels that JPEG moves an image's minimum or maximum by
MOVING = 1.0  # pixels
SMALLEST_SIDE = 16  # pixels; DIS refuses less
COMPARED_PIXELS = 5000  # of a pair to compare, about
MOVING_PIXELS = 300  # of all that must move
# Stored over computed displacement. On real videos an engine agrees with itself to 2 %, and others
# give 0.65 to 1.05 of what DIS gives.
SAME_ENGINE, OTHER_ENGINE = 1.15, 1.7
RELATED, UNRELATED = 0.8, 0.2

# Those fast enough to compute flow anew; DIS is computed in place of the others.
ENGINES = {
    "dis": lambda: cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "farneback": cv2.FarnebackOpticalFlow.create,
}

Problem = tuple[str, str, str]  # severity, kind, message


@dataclass(frozen=True)
class FlowRange:
    """Minimum, maximum and median of flow images, grey levels: float (images, 2), x and y."""

    low: np.ndarray
    high: np.ndarray
    median: np.ndarray

    @classmethod
    def of(cls, images: Sequence[tuple[np.ndarray, np.ndarray]]) -> "FlowRange":
        """Of (x, y) images, of which each pair has one size."""
        pairs = [np.percentile(pair, (0, 100, 50), axis=(1, 2)) for pair in images]
        return cls(*np.stack(pairs, axis=1))

    @property
    def constant(self) -> np.ndarray:
        """Which of x and y never show anything, bool (2,)."""
        return (self.low == self.high).all(axis=0)

    @property
    def fills(self) -> bool:
        """Whether nearly every image goes from black to white, constant ones aside."""
        full = (self.low <= EXTREME) & (self.high >= 255 - EXTREME)
        varied = self.low < self.high  # where a frame is repeated there is no flow
        return bool(varied.sum() >= 3 and full[varied].mean() > 0.9)

    @property
    def centre(self) -> np.ndarray:
        return np.median(self.median, axis=0)

    @property
    def is_suspect(self) -> bool:
        off = np.abs(self.centre - CENTRE) > CENTRE_TOLERANCE
        return bool(self.constant.any() or self.fills or off.any())


@dataclass(frozen=True)
class FlowComparison:
    """Stored grey values beside newly computed displacement, of the same pixels.

    Attributes:
        stored, computed: float32 (pixels, 2), grey levels and pixels to the next frame.
        same_engine: whether both are of one engine.
        to_scale: whether flow and frames have one size, so that their pixels are the same.
    """

    stored: np.ndarray
    computed: np.ndarray
    same_engine: bool
    to_scale: bool

    @property
    def moving(self) -> np.ndarray:
        return np.abs(self.computed) > MOVING

    def centre(self, axis: int) -> float:
        """The grey value of displacement 0, by a line of least absolute deviations."""
        usable = self._usable[:, axis]
        if not usable.any():
            return CENTRE
        stored, computed = self.stored[usable, axis], self.computed[usable, axis]
        centre, slope = np.median(stored), 0.0
        for _ in range(20):  # reweighted least squares
            weight = 1 / np.maximum(np.abs(stored - centre - slope * computed), 0.5)
            covariance = np.cov(computed, stored, bias=True, aweights=weight)
            slope = covariance[0, 1] / max(covariance[0, 0], 1e-6)
            centre = np.average(stored - slope * computed, weights=weight)
        return float(centre)

    def grey_per_pixel(self) -> float | None:
        """The median slope where something moves; None where too little does, or nothing fits."""
        chosen = self.moving & self._usable
        if chosen.sum() < MOVING_PIXELS or abs(self.correlation()) < RELATED:
            return None
        centres = np.array([self.centre(0), self.centre(1)], np.float32)
        return float(np.median((self.stored - centres)[chosen] / self.computed[chosen]))

    def correlation(self, swapped: bool = False) -> float:
        """Of stored with computed values; `swapped`: of each with the other axis's."""
        stored = self.stored[:, ::-1] if swapped else self.stored
        a = (stored - np.median(stored, axis=0)).ravel()
        b = (self.computed - np.median(self.computed, axis=0)).ravel()
        return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-6))

    @property
    def _usable(self) -> np.ndarray:
        return (self.stored > 2) & (self.stored < 253)  # beyond, they are clipped


def compare(pairs: Iterable[tuple[np.ndarray, ...]], recorded: str) -> FlowComparison | None:
    """Compares (first frame, second frame, x image, y image) pairs, all grey uint8 (H, W).

    `recorded` is the engine that the flow was made with, "" if unknown. Frames of another size
    than the flow are resized to it. None if there are no pairs, or too small ones.
    """
    same = recorded in ENGINES
    engine = ENGINES[recorded if same else "dis"]()
    stored, computed = [], []
    to_scale = True
    for *frames, x, y in pairs:
        if min(x.shape) < SMALLEST_SIDE:
            return None
        to_scale &= all(frame.shape == x.shape for frame in frames)
        flow = engine.calc(*(cv2.resize(frame, x.shape[::-1]) for frame in frames), None)
        step = max(1, round((x.size / COMPARED_PIXELS) ** 0.5))
        grid = np.s_[step // 2 :: step, step // 2 :: step]
        computed.append(flow[grid].reshape(-1, 2))
        stored.append(np.dstack([x, y])[grid].reshape(-1, 2))
    if not stored:
        return None
    values = np.concatenate(stored).astype(np.float32)
    return FlowComparison(values, np.concatenate(computed), same, to_scale)


def find_problems(
    images: FlowRange, comparison: FlowComparison | None, bound: float
) -> list[Problem]:
    """What is wrong with a video's flow.

    Args:
        images: of some or all of its images.
        comparison: of some with flow computed from its frames, where that was possible.
        bound: the recorded one, pixels.
    """
    if images.constant.any():
        return _constant(images, comparison)
    if images.fills and not (comparison and _fills_rightly(comparison, bound)):
        message = (
            "every flow image goes from 0 to 255: each was stretched to its own range, so that "
            "grey values of different images mean different speeds"
        )
        return [("error", "flow-normalised", message)]
    found = []
    if comparison is not None and comparison.moving.sum() >= MOVING_PIXELS:
        found = _direction(comparison) or _bound(comparison, bound)
    return found or _off_centre(images, comparison)


def _constant(images: FlowRange, comparison: FlowComparison | None) -> list[Problem]:
    values = sorted({int(v) for v in images.low[:, images.constant].ravel()})
    grey = ", ".join(map(str, values[:3])) + (", ..." if len(values) > 3 else "")
    # More than noise: in a still scene, noise of 8 grey levels seems to move by 2 pixels.
    moves = comparison is not None and np.quantile(np.abs(comparison.computed), 0.998) > 2
    if set(values) <= {127, 128} and not moves:
        return []  # and the flow says so
    what = " and ".join(np.array(["x", "y"])[images.constant])
    return [("error", "flow-constant", f"the {what} flow images are constant (grey {grey})")]


def _fills_rightly(comparison: FlowComparison, bound: float) -> bool:
    """Whether the stored values are those of the bound: stretching moves what stands still."""
    expected = np.clip(CENTRE + comparison.computed * (255 / (2 * bound)), 0, 255)
    off = np.median(np.abs(comparison.stored - expected), axis=0)
    return bool((off < 2 * CENTRE_TOLERANCE).all())


def _off_centre(images: FlowRange, comparison: FlowComparison | None) -> list[Problem]:
    for axis, name in enumerate("xy"):
        if comparison is not None:
            centre, certain = comparison.centre(axis), True
        else:  # it may be the camera that moves, though hardly so evenly
            centre, certain = images.centre[axis], np.ptp(images.median[:, axis]) <= 1
        if certain and abs(centre - CENTRE) > CENTRE_TOLERANCE:
            message = f"no motion is stored as {centre:.0f} in the {name} flow images"
            severity = "warning" if comparison is None else "error"
            return [(severity, "flow-centre", f"{message}, instead of 127 or 128")]
    return []


def _direction(comparison: FlowComparison) -> list[Problem]:
    straight, swapped = comparison.correlation(), comparison.correlation(swapped=True)
    if straight < -0.5:
        return [("error", "flow-inverted", "the flow points the wrong way, from each frame back")]
    if abs(swapped) > RELATED and abs(straight) < 0.5:
        return [("error", "flow-swapped", "the x images hold y flow, and the reverse")]
    if straight < UNRELATED:
        message = f"the flow is not of these frames (correlation {straight:.2f} with theirs)"
        return [("warning", "flow-unrelated", message)]
    return []


def _bound(comparison: FlowComparison, bound: float) -> list[Problem]:
    slope = comparison.grey_per_pixel() if comparison.to_scale else None
    if slope is None or slope <= 0:
        return []
    ratio = slope / (255 / (2 * bound))
    tolerance = SAME_ENGINE if comparison.same_engine else OTHER_ENGINE
    if 1 / tolerance < ratio < tolerance:
        return []
    message = (
        f"a pixel of motion changes the flow by {slope:.1f} grey levels, as with a bound of "
        f"{255 / (2 * slope):.0f} pixels, not {bound:g}"
    )
    return [("error" if comparison.same_engine else "warning", "flow-bound", message)]
