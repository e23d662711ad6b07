"""Fusion of any number of streams, with weights that are given or found on held-out videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from datasets import DataError
from engine import UsageError
from engine.metrics import fuse, topk_accuracy
from engine.testing.score_files import ScoreFile, check_classes, match_files
from engine.testing.score_runs import Run


@dataclass(frozen=True)
class Fusion:
    """Streams, their fusion, and how it was made.

    Attributes:
        weights: split -> a number for each stream.
        held_out: split -> what the weights were searched on; empty if they were given.
    """

    streams: Sequence[Run]
    fused: Run
    weights: Mapping[int, Sequence[float]]
    held_out: Mapping[int, Mapping[str, object]]


def fuse_runs(streams: Sequence[Run], weights: Sequence[float]) -> Fusion:
    """Fuses runs on each split.

    Raises UsageError unless there is a weight for each, and DataError unless they are of the same
    splits and videos.
    """
    splits = _splits(streams)
    if len(weights) != len(streams) or not any(weights):
        raise UsageError(
            f"--fusion-weights: {len(weights)} weights for {len(streams)} runs; give one for each, "
            f"not all 0: {'; '.join(run.name for run in streams)}"
        )
    name = "fused " + " : ".join(f"{weight:g}" for weight in weights)
    return _fuse(streams, name, dict.fromkeys(splits, tuple(weights)), {})


def search_and_fuse(
    streams: Sequence[Run], files: Sequence[ScoreFile], held_out: Sequence[ScoreFile]
) -> Fusion:
    """Fuses runs with each split's weights found on that split's held-out videos.

    Args:
        files: all score files of the runs.
        held_out: for each of them, the same network's scores of held-out videos.

    Raises UsageError if their numbers do not fit, DataError if a held-out video is tested on its
    split, and for what does not match.
    """
    # held-out files by their test's path
    splits = _splits(streams)
    if len(held_out) != len(files):
        raise UsageError(
            f"--search: {len(held_out)} held-out files for {len(files)} score files; give one for "
            "each, in the same order"
        )
    by_path = dict(zip([file.path for file in files], held_out, strict=True))
    # weights of each split
    weights, found = {}, {}
    for split in splits:
        tests = [run.splits[split] for run in streams]
        ours = [by_path[test.path] for test in tests]
        for pair in zip(ours, tests, strict=True):
            check_held_out(*pair)
        weights[split], top1 = search_weights(ours)
        equal = fuse_files(ours, [1] * len(ours))
        found[split] = {
            "files": [str(file.path) for file in ours],
            "videos": len(equal.videos),
            "top1": round(top1, 4),
            "top1_equal_weights": round(topk_accuracy(equal.scores, equal.labels, 1), 4),
        }
    return _fuse(streams, "fused, weights searched", weights, found)


def _splits(streams: Sequence[Run]) -> list[int]:
    if len(streams) < 2:
        raise UsageError(f"fusion needs two runs or more; these files are one: {streams[0].name}")
    for run in streams:
        if run.splits.keys() != streams[0].splits.keys():
            raise DataError(
                f"'{streams[0].name}' is of split {sorted(streams[0].splits)} and '{run.name}' of "
                f"{sorted(run.splits)}: give the same splits of every stream"
            )
    return list(streams[0].splits)


def _fuse(streams: Sequence[Run], name: str, weights: Mapping, held_out: Mapping) -> Fusion:
    splits = {
        split: fuse_files([run.splits[split] for run in streams], own)
        for split, own in weights.items()
    }
    return Fusion(streams, Run(name, splits), weights, held_out)


def fuse_files(streams: Sequence[ScoreFile], weights: Sequence[float]) -> ScoreFile:
    """The streams' fusion, with the videos in the first one's order.

    Raises DataError unless all have the same videos, labels and classes.
    """
    return replace(
        streams[0],
        scores=fuse(_aligned(streams), weights),
        clip_scores=None,
        clip_videos=None,
        metadata={},
        streams={},
    )


def _aligned(streams: Sequence[ScoreFile]) -> list[np.ndarray]:
    return [stream.scores[match_files(streams[0], stream)] for stream in streams]


def check_held_out(held_out: ScoreFile, test: ScoreFile) -> None:
    """Raises DataError unless weights for `test` may be searched for on `held_out`.

    They may if both have the same classes, are of the same network as far as their JSONs say, and
    share no video: weights chosen on test videos make the test's result too good. Names decide
    what is the same video.
    """
    check_classes(test, held_out)
    for key in ("arch", "split"):
        ours, theirs = test.metadata.get(key), held_out.metadata.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            raise DataError(
                f"{held_out.path} is of {key} {theirs}, and {test.path} of {key} {ours}: give the "
                "held-out files in the order of the score files"
            )
    shared = [video for video in held_out.videos if video in set(test.videos)]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(held_out.videos)} held-out videos of {held_out.path} are "
            f"test videos of {test.path}: {', '.join(shared[:3])}; search for weights on videos "
            "that are not tested"
        )


def search_weights(held_out: Sequence[ScoreFile]) -> tuple[tuple[float, ...], float]:
    """The streams' weights of the best top-1 on held-out videos, and that top-1, percent.

    Every division of 1 in steps of 0.05 is tried (0.1 for more than three streams). Of equally
    good ones those nearest to equal weights are taken.
    """
    scores, labels = _aligned(held_out), held_out[0].labels
    steps = 20 if len(scores) <= 3 else 10
    parts = product(range(steps + 1), repeat=len(scores))
    divisions = [tuple(part / steps for part in own) for own in parts if sum(own) == steps]

    def quality(weights: Sequence[float]) -> tuple[float, float]:
        return topk_accuracy(fuse(scores, weights), labels, 1), -round(float(np.var(weights)), 9)

    best = max(divisions, key=quality)
    return best, quality(best)[0]
