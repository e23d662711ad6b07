"""Score files of the test scripts: written, read, matched by video, and grouped into runs.

A file is an npz with `video` (N,), `label` (N,), `score` (N, classes) and `classes` (classes,);
newer ones also hold `clip_score` (M, classes), each clip's logits averaged over its crops, and
`clip_video` (M,), the place of the clip's video. What was tested stands in a JSON of the same stem.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from datasets import DataError
from datasets.files import written_whole
from engine.files import CheckpointError, refuse_bomb
from engine.testing.token_order import NORMAL

# What files of one run have in common; older ones do not state the order: it was the normal one.
RUN_KEYS = ("dataset", "arch", "clips", "crops", "time_order")
MOST_PACKED = 100  # times its size that a file may unpack to; ours are not compressed at all
# Name -> dimensions and NumPy kinds.
_ARRAYS = {"video": (1, "U"), "label": (1, "iu"), "score": (2, "f"), "classes": (1, "U")}
_CLIP_ARRAYS = {"clip_score": (2, "f"), "clip_video": (1, "iu")}
_KINDS = {"U": "text", "iu": "whole numbers", "f": "floating-point numbers"}


@dataclass(frozen=True)
class ScoreFile:
    """A test's scores.

    Attributes:
        videos: N names, each once.
        labels: int64 (N,).
        scores: float32 (N, classes); all NaN for a video that could not be scored.
        clip_scores, clip_videos: float32 (M, classes), int64 (M,); None in older files.
        metadata: split and RUN_KEYS from the JSON beside the file; empty without one.
    """

    path: Path
    videos: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    clip_scores: np.ndarray | None
    clip_videos: np.ndarray | None
    metadata: Mapping[str, object]

    @property
    def unscored(self) -> int:
        """Videos that could not be scored."""
        return int(np.isnan(self.scores[:, 0]).sum())


@dataclass(frozen=True)
class Run:
    """One network tested in one way, on one or more splits.

    Attributes:
        name: unlike that of any other run.
        splits: split number -> its scores; a file that names no split counts as split 1.
    """

    name: str
    splits: Mapping[int, ScoreFile]


def write_scores(
    path: Path,
    videos: Sequence[str],
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    clip_scores: Sequence[np.ndarray] = (),
) -> None:
    """Writes a score file, whole or not at all.

    Args:
        labels, scores: (N,) and (N, classes).
        clip_scores: of each video (clips, classes), if clips have scores of their own.
    """
    clips = {}
    if clip_scores:
        clips["clip_score"] = np.concatenate(clip_scores).astype(np.float32)
        clips["clip_video"] = np.repeat(np.arange(len(videos)), list(map(len, clip_scores)))
    with written_whole(path) as file:
        np.savez(
            file,
            video=np.array(videos),
            label=labels.astype(np.int64),
            score=scores.astype(np.float32),
            classes=np.array(classes),
            **clips,
        )


def read_scores(path: Path) -> ScoreFile:
    """Reads a score file, executing nothing, and the JSON beside it, if there is one.

    Raises DataError, naming the file and what is wrong, if it is no such file.
    """
    # arrays
    data = _read_arrays(path)
    clips = _CLIP_ARRAYS if _CLIP_ARRAYS.keys() & data.keys() else {}
    for key, kind in (_ARRAYS | clips).items():
        _check_array(path, data, key, *kind)
    videos, labels, scores, classes = (data[key] for key in _ARRAYS)
    # video names
    if not len(videos):
        raise DataError(f"{path}: no videos")
    name, times = Counter(videos.tolist()).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: the video '{name}' is there twice")
    # sizes and labels
    shape = (len(videos), len(classes))
    if labels.shape != shape[:1] or scores.shape != shape:
        raise DataError(
            f"{path}: {shape[0]} videos and {shape[1]} classes, but labels {labels.shape} and "
            f"scores {scores.shape}"
        )
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise DataError(f"{path}: a label {wrong[0]}, but {len(classes)} classes")
    # clips
    clip_scores, clip_videos = data.get("clip_score"), data.get("clip_video")
    if clips:
        fits = clip_scores.shape == (len(clip_videos), len(classes))
        if not fits or set(clip_videos.tolist()) != set(range(len(videos))):
            raise DataError(
                f"{path}: clip scores {clip_scores.shape} of {len(clip_videos)} clips do not fit "
                f"{shape[0]} videos and {shape[1]} classes"
            )
        clip_scores, clip_videos = _nan_rows(clip_scores), clip_videos.astype(np.int64)
    return ScoreFile(
        path,
        tuple(videos.tolist()),
        labels.astype(np.int64),
        _nan_rows(scores),
        tuple(classes.tolist()),
        clip_scores,
        clip_videos,
        _read_metadata(path.with_suffix(".json")),
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such score file")
    try:
        refuse_bomb(path, MOST_PACKED)
        data = np.load(path, allow_pickle=False)
        if isinstance(data, np.ndarray):
            raise ValueError("it holds a single array, not those of an npz")
        with data:
            return dict(data)
    except CheckpointError as error:
        raise DataError(str(error)) from None
    except Exception as error:  # whatever broken bytes lead NumPy to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "Object arrays" in reason or "pickled data" in reason:
            reason = "it is no npz, or holds pickled objects, which are never loaded"
        raise DataError(f"{path}: not a readable score file: {reason}") from None


def _check_array(path: Path, data: Mapping, key: str, dimensions: int, kinds: str) -> None:
    if key not in data:
        raise DataError(f"{path}: no '{key}' in it; it has {', '.join(data) or 'nothing'}")
    array = data[key]
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise DataError(
            f"{path}: '{key}' should be {_KINDS[kinds]} in {dimensions} dimension(s), "
            f"not {array.dtype} {array.shape}"
        )


def _nan_rows(scores: np.ndarray) -> np.ndarray:
    """Float32, a row that is not finite throughout made all NaN: it ranks nothing."""
    scores = scores.astype(np.float32)
    scores[~np.isfinite(scores).all(axis=1)] = np.nan
    return scores


def _read_metadata(path: Path) -> dict[str, object]:
    """The test script's JSON about the test; empty without a file, or with a foreign one."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        return {}
    if "streams" in content:
        content["arch"] = "+".join(content["streams"])
    content.setdefault("time_order", NORMAL)
    known = content.keys() >= {"split", *RUN_KEYS} and isinstance(content["split"], int)
    return {key: content[key] for key in ("split", *RUN_KEYS)} if known else {}


def match_files(first: ScoreFile, other: ScoreFile) -> list[int]:
    """match_videos for two files; raises DataError also if their classes differ."""
    check_classes(first, other)
    listed = ([*zip(f.videos, f.labels, repeat(f.path), strict=False)] for f in (first, other))
    return match_videos(*listed, (first.path, other.path))


def match_videos(
    first: Sequence[tuple[str, int, object]],
    other: Sequence[tuple[str, int, object]],
    names: tuple[object, object],
) -> list[int]:
    """Where each video of one list stands in another.

    Args:
        first, other: each video's name, label, and where that is written, for error messages.
        names: what error messages call the two lists.

    Raises DataError, saying what differs, unless both have the same videos and labels.
    """
    places = {video: place for place, (video, _, _) in enumerate(other)}
    wanted = {video for video, _, _ in first}
    missing, more = wanted - places.keys(), places.keys() - wanted
    for only, (here, there) in ((missing, names), (more, names[::-1])):
        if only:
            some = ", ".join(sorted(only)[:3])
            raise DataError(f"{len(only)} videos are in {here} and not in {there}: {some}")
    if len(first) != len(other):
        raise DataError(f"a video is listed twice in {names[0]} or {names[1]}")
    for video, label, line in first:
        _, twin, twin_line = other[places[video]]
        if label != twin:
            raise DataError(f"'{video}' has label {label} in {line} and {twin} in {twin_line}")
    return [places[video] for video, _, _ in first]


def check_classes(first: ScoreFile, other: ScoreFile) -> None:
    """Raises DataError, saying what differs, unless both have the same classes in one order."""
    if len(first.classes) != len(other.classes):
        raise DataError(
            f"{first.path} has {len(first.classes)} classes, {other.path} {len(other.classes)}"
        )
    for place, (a, b) in enumerate(zip(first.classes, other.classes, strict=True)):
        if a != b:
            raise DataError(f"class {place} is '{a}' in {first.path} and '{b}' in {other.path}")


def group_runs(files: Sequence[ScoreFile]) -> list[Run]:
    """Puts the splits of a run together, in the order of the first file of each.

    Files belong together when their JSONs agree on dataset, arch, clips and crops, and without a
    JSON when their names differ by `split<k>` alone. Where that gives a run two files of one
    split, their folders tell them apart, or else each file is a run.

    Raises DataError if a file is given twice, or the splits of a run have different classes.
    """
    path, times = Counter(file.path.resolve() for file in files).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path} is given twice")
    names = [_run_name(file) for file in files]
    for finer in (lambda file: file.path.parent.name, lambda file: file.path):
        taken = Counter(zip(names, map(_split, files), strict=True))
        crowded = {name for (name, _), count in taken.items() if count > 1}
        names = [
            f"{name} [{finer(file)}]" if name in crowded else name
            for name, file in zip(names, files, strict=True)
        ]
    runs: dict[str, dict[int, ScoreFile]] = {}
    for name, file in zip(names, files, strict=True):
        splits = runs.setdefault(name, {})
        for earlier in splits.values():
            check_classes(earlier, file)
        splits[_split(file)] = file
    return [Run(name, dict(sorted(splits.items()))) for name, splits in runs.items()]


def _run_name(file: ScoreFile) -> str:
    test = file.metadata
    if not test:
        return re.sub(r"[_-]?split\d+", "", file.path.stem)
    crops = "1 crop" if test["crops"] == 1 else f"{test['crops']} crops"
    order = "" if test["time_order"] == NORMAL else f", {test['time_order']}"
    return f"{test['dataset']} {test['arch']}, {test['clips']} clip, {crops}{order}"


def _split(file: ScoreFile) -> int:
    named = re.search(r"split(\d+)", file.path.stem)
    return file.metadata.get("split", int(named[1]) if named else 1)
