"""Score files summarized as plain numbers: accuracies by run, comparisons, fusion by class."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, repeat

import numpy as np

from datasets import DataError
from engine.analysis import statistics
from engine.analysis.fusion import Fusion
from engine.metrics import topk_hits
from engine.testing.score_files import ScoreFile, match_files
from engine.testing.score_runs import Run

METRICS = {  # in JSON, in tables
    "top1": "top-1",
    "top3": "top-3",
    "mean_class_accuracy": "mean class",
    "clip_top1": "clip top-1",
}


def summarize_runs(runs: Sequence[Run], fusion: Fusion | None = None) -> dict:
    """All that scripts/summarize.py writes as JSON; the fusion, if any, is one more run."""
    runs = [*runs, fusion.fused] if fusion else runs
    comparisons, refused = compare_runs(runs)
    summary = {
        "level": statistics.LEVEL,
        "resamples": statistics.RESAMPLES,
        "seed": statistics.SEED,
        "runs": [summarize_run(run) for run in runs],
        "mcnemar": comparisons,
        "not_compared": refused,
    }
    return summary | ({"fusion": summarize_fusion(fusion)} if fusion else {})


def _outcome(file: ScoreFile) -> statistics.Outcome:
    return statistics.outcome(file.scores, file.labels, file.clip_scores, file.clip_videos)


def summarize_run(run: Run) -> dict:
    """Accuracies of each split and over the splits, with intervals, percent."""
    outcomes = [_outcome(file) for file in run.splits.values()]
    splits = []
    for (number, file), result in zip(run.splits.items(), outcomes, strict=True):
        entry = {
            "split": number,
            "file": str(file.path),
            "videos": len(file.videos),
            "unscored": file.unscored,
            **_with_intervals([result]),
        }
        for metric, hits in (("top1", result.top1), ("top3", result.top3)):
            if hits.all() or not hits.any():
                ends = statistics.exact_interval(int(hits.sum()), len(hits))
                entry[metric]["exact"] = _rounded(ends)
        splits.append(entry)
    summary = {"name": run.name, "splits": splits}
    if len(splits) > 1:
        summary["over_splits"] = over = _with_intervals(outcomes)
        for metric, values in over.items():
            values["sd"] = round(float(np.std([s[metric]["value"] for s in splits], ddof=1)), 4)
        times = Counter(video for file in run.splits.values() for video in file.videos)
        summary["videos_in_several_splits"] = sum(count > 1 for count in times.values())
    return summary


def _with_intervals(outcomes: Sequence[statistics.Outcome]) -> dict[str, dict]:
    values = statistics.mean_accuracies(outcomes)
    intervals = statistics.accuracy_intervals(outcomes)
    ends = repeat(None) if intervals is None else map(_rounded, intervals)
    rows = zip(METRICS, _rounded(values), ends, strict=False)
    return {metric: {"value": value, "interval": interval} for metric, value, interval in rows}


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def compare_runs(runs: Sequence[Run]) -> tuple[list[dict], list[str]]:
    """McNemar's tests between any two runs of the same videos, and why others are not compared.

    A pair tested on several splits is compared on each and on all of them together; Holm's
    correction counts each pair once.
    """
    rows, decisive, refused = [], [], []
    for first, second in combinations(range(len(runs)), 2):
        pair, reasons = _compare(runs[first], runs[second])
        rows += [{"first": first, "second": second} | row for row in pair]
        decisive += rows[-1:] if pair else []  # of all splits together
        refused += reasons
    for row, p in zip(decisive, statistics.holm([row["p"] for row in decisive]), strict=True):
        row["p_holm"] = p
    return rows, refused


def _compare(first: Run, second: Run) -> tuple[list[dict], list[str]]:
    hits, refused = {}, []
    for split in sorted(first.splits.keys() & second.splits.keys()):
        ours, theirs = first.splits[split], second.splits[split]
        if not set(ours.videos) & set(theirs.videos):
            continue  # other data: nothing to compare
        try:
            order = match_files(ours, theirs)
        except DataError as error:
            refused.append(str(error))
            continue
        found = [topk_hits(file.scores, file.labels, 1) for file in (ours, theirs)]
        hits[split] = (found[0], found[1][order])
    if len(hits) > 1:
        hits["all"] = tuple(map(np.concatenate, zip(*hits.values(), strict=True)))
    rows = []
    for split, pair in hits.items():
        only_first, only_second, p = statistics.mcnemar(*pair)
        row = {"split": split, "videos": len(pair[0])}
        rows.append(row | {"only_first": only_first, "only_second": only_second, "p": float(p)})
    return rows, refused


def summarize_fusion(fusion: Fusion) -> dict:
    """Weights, and by class over all splits the accuracy of the streams and of their fusion.

    `gain` is the fusion's accuracy less the first stream's, in percentage points.
    """
    names = next(iter(fusion.fused.splits.values())).classes
    shares = []
    for run in (*fusion.streams, fusion.fused):
        outcomes = [_outcome(run.splits[split]) for split in fusion.fused.splits]
        videos, share = statistics.class_accuracies(outcomes, len(names))
        shares.append(share)
    classes = []
    for name, number, *streams, fused in zip(names, videos, *shares, strict=True):
        if number:
            row = {"class": name, "videos": int(number), "streams": _rounded(streams)}
            fused, gain = _rounded([fused, fused - streams[0]])
            classes.append(row | {"fused": fused, "gain": gain})
    return {
        "streams": [run.name for run in fusion.streams],
        "weights": {str(split): list(weights) for split, weights in fusion.weights.items()},
        "held_out": {str(split): found for split, found in fusion.held_out.items()},
        "classes": classes,
    }
