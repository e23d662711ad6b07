"""How far a network's confidence can be trusted: probabilities, reliability, calibration error."""

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in one range, of width 1 / BINS.

    Attributes:
        low, high: the range; its lower end is outside.
        videos: how many.
        confidence, accuracy: their means, 0 to 1; NaN without videos.
    """

    low: float
    high: float
    videos: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy.

    Attributes:
        error: expected calibration error, in percentage points.
        confidence, accuracy: means over all scored videos, percent.
    """

    bins: tuple[Bin, ...]
    error: float
    confidence: float
    accuracy: float


def reliability(probabilities: np.ndarray, correct: np.ndarray) -> Reliability | None:
    """Bins of equal width, and the expected calibration error over them.

    The error is the mean over the bins, weighted by their videos, of |accuracy - confidence|:
    M. P. Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015;
    C. Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.

    Args:
        probabilities: (N, classes); rows of NaN are left out.
        correct: bool (N,).

    Returns:
        None if no video is scored.
    """
    scored = np.isfinite(probabilities).all(axis=1)
    if not scored.any():
        return None
    confidence, correct = probabilities[scored].max(axis=1), correct[scored]
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for place in range(BINS):
        own = places == place
        means = [np.nan, np.nan]
        if own.any():
            means = [float(confidence[own].mean()), float(correct[own].mean())]
            error += float(own.mean()) * abs(means[1] - means[0])
        bins.append(Bin(place / BINS, (place + 1) / BINS, int(own.sum()), *means))
    return Reliability(
        tuple(bins), 100 * error, 100 * float(confidence.mean()), 100 * float(correct.mean())
    )
