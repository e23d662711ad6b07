"""What a report's page shows, computed from its contents: classes, confusions, pairs of tests."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.reporting.charts import LineChart, line_chart
from engine.reporting.contents import ReportContent, Tested
from engine.reporting.trainings import Training

MOST_MATRIX = 60  # classes of a confusion matrix that is drawn; of more, those with most errors
MOST_PAIRS = 12  # frequent confusions
TOP = 5  # classes of a video that are shown


def class_rows(content: ReportContent, test: Tested) -> list[dict]:
    """Of each class that occurs: videos, share correct, precision, what it is mistaken for.

    Percent; of a fusion also the same share of each stream, and the gain on the best of them.
    """
    labels, rows = test.scores.labels, []
    predicted_as = test.confusion.sum(axis=0)
    for label, name in enumerate(test.scores.classes):
        own = labels == label
        if not own.any():
            continue
        others = test.confusion[label].copy()
        hits, others[label] = others[label], 0
        parts = [100 * float(content.tests[part].correct[own].mean()) for part in test.parts]
        accuracy = 100 * float(test.correct[own].mean())
        rows.append(
            {
                "name": name,
                "videos": int(own.sum()),
                "accuracy": accuracy,
                "precision": 100 * hits / predicted_as[label] if predicted_as[label] else None,
                "parts": parts,
                "gain": accuracy - max(parts) if parts else None,
                "mistaken": test.scores.classes[others.argmax()] if others.any() else "",
                "mistaken_label": int(others.argmax()),
                "times": int(others.max()),
                "label": label,
            }
        )
    return rows


def matrix_classes(test: Tested) -> list[int]:
    """The classes of the drawn confusion matrix: all, or those with most errors, in their order."""
    errors = test.confusion.sum(axis=0) + test.confusion.sum(axis=1) - 2 * test.confusion.diagonal()
    most = np.argsort(-errors, kind="stable")[:MOST_MATRIX]
    return sorted(most.tolist())


def matrix_rows(
    test: Tested, chosen: Sequence[int]
) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """(label, its cells): of each cell the predicted class, the count, and its share in tenths."""
    totals = np.maximum(test.confusion.sum(axis=1), 1)
    return [
        (
            label,
            [
                (place, count, -(-10 * count // int(totals[label])))
                for place, count in zip(chosen, test.confusion[label, chosen].tolist(), strict=True)
            ],
        )
        for label in chosen
    ]


def frequent_confusions(test: Tested) -> list[tuple[int, int, int]]:
    """(label, predicted class, videos) of the most frequent confusions."""
    errors = test.confusion - np.diag(test.confusion.diagonal())
    order = np.argsort(-errors, axis=None, kind="stable")[:MOST_PAIRS]
    places = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [(int(a), int(b), int(errors[a, b])) for a, b in places if errors[a, b]]


def pair_rows(content: ReportContent) -> list[dict]:
    """Every two tests of the same videos: how many both, one or none predicts correctly, and p."""
    rows = []
    for found in content.summary["mcnemar"]:
        if found["split"] == "all":
            continue
        first, second = (
            _of_split(content, found[key], found["split"]) for key in ("first", "second")
        )
        a, b = (content.tests[place].correct for place in (first, second))
        rows.append(
            {
                "first": first,
                "second": second,
                "both": int((a & b).sum()),
                "only_first": int((a & ~b).sum()),
                "only_second": int((~a & b).sum()),
                "neither": int((~a & ~b).sum()),
                "p": found["p"],
                "p_holm": found.get("p_holm"),
            }
        )
    return rows


def _of_split(content: ReportContent, run: int, split: int) -> int:
    splits = [entry["split"] for entry in content.summary["runs"][run]["splits"]]
    return content.runs[run][splits.index(split)]


def training_charts(training: Training) -> list[LineChart]:
    """Loss and top-1 by epoch."""
    charts = []
    for title, field, top in (("Loss, nats", "loss", None), ("Top-1, %", "top1", 100.0)):
        curves = {
            label: [(epoch.epoch, getattr(getattr(epoch, key), field)) for epoch in training.epochs]
            for label, key in (("training", "train"), ("validation", "val"))
        }
        averages = [(e.epoch, getattr(e.ema, field)) for e in training.epochs if e.ema]
        curves |= {"average of weights": averages} if averages else {}
        charts.append(line_chart(title, curves, top))
    return charts


def wanted_videos(content: ReportContent, places: Sequence[int]) -> list[str]:
    """A set's videos, those first that a reader looks for first.

    First those on which tests disagree or that any predicts wrongly, the least probable labels
    before others; then the least certain answers.
    """
    tests = [content.tests[place] for place in places]
    labels = tests[0].scores.labels
    correct = np.stack([test.correct for test in tests])
    of_label = [test.probabilities[np.arange(len(labels)), labels] for test in tests]
    certainty = np.nan_to_num(np.min(of_label, axis=0))  # of the label, by the worst test
    order = np.lexsort((certainty, correct.all(axis=0)))
    return [tests[0].scores.videos[place] for place in order]


def page_data(content: ReportContent, previews: Sequence[Mapping[str, tuple[str, int]]]) -> dict:
    """What the page's script needs: sets of videos, and each test's answers, as plain values."""
    sets = []
    for places, images in zip(content.sets, previews, strict=True):
        file = content.tests[places[0]].scores
        sets.append(
            {
                "classes": file.classes,
                "videos": file.videos,
                "labels": file.labels.tolist(),
                "tests": list(places),
                "images": [images.get(video) for video in file.videos],
            }
        )
    number = {place: index for index, places in enumerate(content.sets) for place in places}
    return {"sets": sets, "tests": [_answers(t, number[i]) for i, t in enumerate(content.tests)]}


def _answers(test: Tested, number: int) -> dict:
    scored = np.isfinite(test.probabilities).all(axis=1)
    top = np.argsort(-test.probabilities, axis=1, kind="stable")[:, :TOP]
    shares = np.take_along_axis(test.probabilities, top, axis=1)
    own = test.probabilities[np.arange(len(scored)), test.scores.labels]
    unscored = test.record.streams.get(test.arch, {}).get("unscored")
    reasons = {**test.record.unscored, **(unscored if isinstance(unscored, dict) else {})}
    return {
        "name": test.name,
        "short": test.short,
        "kind": test.kind,
        "set": number,
        "predicted": test.predicted.tolist(),
        "correct": test.correct.astype(int).tolist(),
        "label": [round(float(p), 4) if ok else None for p, ok in zip(own, scored, strict=True)],
        "top": [
            [[int(c), round(float(p), 4)] for c, p in zip(*row, strict=True)] if ok else []
            for *row, ok in zip(top, shares, scored, strict=True)
        ],
        "reasons": {video: str(reasons[video]) for video in test.scores.videos if video in reasons},
    }
