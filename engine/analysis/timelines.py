"""How good timelines are, where the truth is known: frame accuracy, segment F1, mAP.

A segment is right if its class is that of a true one that it overlaps by an intersection over union
(IoU) of at least 0.5; each true one makes one right (as ActivityNet's evaluation counts, Caba
Heilbron et al., CVPR 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from sklearn.metrics import average_precision_score

from datasets.files import DataError, read_bytes

IOU = 0.5
PER_SECOND = 25  # times a second at which labels are compared
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


@dataclass(frozen=True)
class Span:
    """An action from `start` to `end`, in seconds; `probability` of a found one."""

    label: str
    start: Seconds
    end: Seconds
    probability: float = 1.0


@dataclass(frozen=True)
class Spans:
    """A video's length in seconds and its actions: a truth, or what `predict.py` found."""

    seconds: Seconds
    segments: list[Span]

    def labels(self) -> np.ndarray:
        """The label at each of PER_SECOND times a second; "" for none."""
        labels = np.full(max(1, round(self.seconds * PER_SECOND)), "", dtype=object)
        for s in self.segments:
            labels[round(s.start * PER_SECOND) : round(s.end * PER_SECOND)] = s.label
        return labels


@dataclass(frozen=True)
class TimelineScores:
    """Of all videos together; shares from 0 to 1.

    Attributes:
        frame_accuracy: times with the right label, or rightly none.
        precision, recall, f1: of segments at an IoU of 0.5.
        mean_ap: mean over the true classes of the average precision at that IoU.
        segments: true ones.
        seconds: of all videos.
    """

    frame_accuracy: float
    precision: float
    recall: float
    f1: float
    mean_ap: float
    segments: int
    seconds: float


def read_spans(path: Path) -> Spans:
    """A JSON file of a timeline or a truth; raises DataError, naming it, for any other."""
    try:
        return msgspec.json.decode(read_bytes(path), type=Spans)
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is no timeline: {error}") from None


def score_timelines(pairs: Sequence[tuple[Spans, Spans]]) -> TimelineScores:
    """Scores of (truth, found) pairs."""
    correct = times = 0
    matched: list[tuple[str, float, bool]] = []  # of found segments: label, probability, right
    for truth, found in pairs:
        a, b = truth.labels(), found.labels()
        length = max(len(a), len(b))
        a, b = (np.pad(own, (0, length - len(own)), constant_values="") for own in (a, b))
        correct, times = correct + int((a == b).sum()), times + length
        matched += match_spans(truth.segments, found.segments)
    true = sum(len(truth.segments) for truth, _ in pairs)
    right = sum(is_right for *_, is_right in matched)
    precision, recall = right / max(len(matched), 1), right / max(true, 1)
    return TimelineScores(
        correct / max(times, 1),
        precision,
        recall,
        2 * right / max(len(matched) + true, 1),
        _mean_average_precision(pairs, matched),
        true,
        sum(truth.seconds for truth, _ in pairs),
    )


def match_spans(truth: Sequence[Span], found: Sequence[Span]) -> list[tuple[str, float, bool]]:
    """Each found segment's label, probability, and whether it is right; the surest choose first."""
    free = list(truth)
    result = []
    for own in sorted(found, key=lambda s: -s.probability):
        fitting = [t for t in free if t.label == own.label and overlap(t, own) >= IOU]
        if fitting:
            free.remove(max(fitting, key=lambda t: overlap(t, own)))
        result.append((own.label, own.probability, bool(fitting)))
    return result


def overlap(a: Span, b: Span) -> float:
    """Intersection over union in time, 0..1."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    whole = max(a.end, b.end) - min(a.start, b.start)
    return max(0.0, shared) / whole if whole > 0 else 0.0


def _mean_average_precision(
    pairs: Sequence[tuple[Spans, Spans]], matched: Sequence[tuple[str, float, bool]]
) -> float:
    """scikit-learn's average precision of a class's found segments, times the share found: those
    that are not found have no rank."""
    labels = [s.label for truth, _ in pairs for s in truth.segments]
    values = []
    for label in sorted(set(labels)):
        own = [(probability, right) for name, probability, right in matched if name == label]
        right = [is_right for _, is_right in own]
        if any(right):
            precision = average_precision_score(right, [probability for probability, _ in own])
            values.append(float(precision) * sum(right) / labels.count(label))
        else:
            values.append(0.0)
    return float(np.mean(values)) if values else 0.0
