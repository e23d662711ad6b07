"""Score files of the test scripts: written, read, and matched by video.

A file is an npz with `video` (N,), `label` (N,), `score` (N, classes) and `classes` (classes,);
newer ones also hold `clip_score` (M, classes), each clip's logits averaged over its crops, and
`clip_video` (M,), the place of the clip's video; those of a fusion `stream` (S,), its streams'
architectures, and `stream_score` (S, N, classes). What was tested stands in a JSON of the same
stem.
"""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from datasets import DataError
from datasets.files import check_file, printable, read_json, written_whole
from engine.files import check_zip
from engine.testing.token_order import NORMAL

# What files of one run have in common; older ones do not state the order: it was the normal one.
RUN_KEYS = ("dataset", "arch", "clips", "crops", "time_order")
MOST_PACKED = 100  # times its size that a file may unpack to; ours are not compressed at all
# Name -> dimensions and NumPy kinds.
_ARRAYS = {"video": (1, "U"), "label": (1, "iu"), "score": (2, "f"), "classes": (1, "U")}
_CLIP_ARRAYS = {"clip_score": (2, "f"), "clip_video": (1, "iu")}
_STREAM_ARRAYS = {"stream": (1, "U"), "stream_score": (3, "f")}
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
        streams: of a fusion, architecture -> that stream's own scores, float32 (N, classes).
    """

    path: Path
    videos: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    clip_scores: np.ndarray | None
    clip_videos: np.ndarray | None
    metadata: Mapping[str, object]
    streams: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def unscored(self) -> int:
        """Videos that could not be scored."""
        return int(np.isnan(self.scores[:, 0]).sum())


@dataclass(frozen=True)
class _Test:
    """What the JSON beside a score file says: its split, and RUN_KEYS."""

    split: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    dataset: str
    arch: str
    clips: str
    crops: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    time_order: str


def write_scores(
    path: Path,
    videos: Sequence[str],
    labels: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    clip_scores: Sequence[np.ndarray] = (),
    streams: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a score file, whole or not at all.

    Args:
        labels, scores: (N,) and (N, classes).
        clip_scores: of each video (clips, classes), if clips have scores of their own.
        streams: what a fusion was made of, architecture -> (N, classes).
    """
    more = {}
    if streams:
        more["stream"] = np.array(list(streams))
        more["stream_score"] = np.stack([*streams.values()]).astype(np.float32)
    if clip_scores:
        more["clip_score"] = np.concatenate(clip_scores).astype(np.float32)
        more["clip_video"] = np.repeat(np.arange(len(videos)), list(map(len, clip_scores)))
    with written_whole(path) as file:
        np.savez(
            file,
            video=np.array(videos),
            label=labels.astype(np.int64),
            score=scores.astype(np.float32),
            classes=np.array(classes),
            **more,
        )


def read_scores(path: Path) -> ScoreFile:
    """Reads a score file, executing nothing, and the JSON beside it, if there is one.

    Raises DataError, naming the file and what is wrong, if it is no such file.
    """
    # arrays
    data = _read_arrays(path)
    clips = _CLIP_ARRAYS if _CLIP_ARRAYS.keys() & data.keys() else {}
    of_streams = _STREAM_ARRAYS if _STREAM_ARRAYS.keys() & data.keys() else {}
    for key, kind in (_ARRAYS | clips | of_streams).items():
        _check_array(path, data, key, *kind)
    videos, labels, scores, classes = (data[key] for key in _ARRAYS)
    if not len(videos):
        raise DataError(f"{path}: no videos")
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
    # names
    videos, classes = (_names(path, array) for array in (videos, classes))
    name, times = Counter(videos).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: the video '{name}' is there twice")
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
    # streams
    streams = {}
    if of_streams:
        names, values = _names(path, data["stream"]), data["stream_score"]
        if values.shape != (len(names), *shape) or len(set(names)) < len(names):
            raise DataError(
                f"{path}: stream scores {values.shape} of {len(set(names))} streams do not fit "
                f"{shape[0]} videos and {shape[1]} classes"
            )
        streams = {name: _nan_rows(own) for name, own in zip(names, values, strict=True)}
    return ScoreFile(
        path,
        videos,
        labels.astype(np.int64),
        _nan_rows(scores),
        classes,
        clip_scores,
        clip_videos,
        _read_metadata(path.with_suffix(".json")),
        streams,
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        check_file(path, "score file")
        check_zip(path, MOST_PACKED)
        data = np.load(path, allow_pickle=False)
        if isinstance(data, np.ndarray):
            raise ValueError("it holds a single array, not those of an npz")
        with data:
            arrays = dict(data)
        if foreign := [key for key in arrays if not isinstance(arrays[key], np.ndarray)]:
            raise ValueError(f"its part '{foreign[0]}' is no array")
        return arrays
    except DataError:
        raise
    except Exception as error:  # whatever broken bytes lead NumPy to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "Object arrays" in reason or "pickled data" in reason:
            reason = "it is no npz, or holds pickled objects, which are never loaded"
        raise DataError(f"{path}: not a readable score file: {printable(reason)}") from None


def _check_array(path: Path, data: Mapping, key: str, dimensions: int, kinds: str) -> None:
    if key not in data:
        raise DataError(f"{path}: no '{key}' in it; it has {', '.join(data) or 'nothing'}")
    array = data[key]
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise DataError(
            f"{path}: '{key}' should be {_KINDS[kinds]} in {dimensions} dimension(s), "
            f"not {array.dtype} {array.shape}"
        )


def _names(path: Path, array: np.ndarray) -> tuple[str, ...]:
    """An array's texts; raises DataError for what neither lists nor terminals can hold."""
    native = array.astype(array.dtype.newbyteorder("="))
    if (np.frombuffer(native.tobytes(), np.uint32) > sys.maxunicode).any():
        raise DataError(f"{path}: a name in it is no text, its characters do not exist")
    names = tuple(native.tolist())
    for name in names:
        if name != printable(name) or not {"\n", "\t"}.isdisjoint(name):
            raise DataError(f"{path}: the name '{printable(name)}' holds control characters")
    return names


def _nan_rows(scores: np.ndarray) -> np.ndarray:
    """Float32, a row that is not finite throughout made all NaN: it ranks nothing."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
        scores = scores.astype(np.float32)
    scores[~np.isfinite(scores).all(axis=1)] = np.nan
    return scores


def _read_metadata(path: Path) -> dict[str, object]:
    """The test script's JSON about the test; empty without a file, or with a foreign one."""
    if not os.path.lexists(path):
        return {}
    content = read_json(path, Any)
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get("streams"), dict):
        content["arch"] = "+".join(map(str, content["streams"]))
    content.setdefault("time_order", NORMAL)
    if not content.keys() >= {"split", *RUN_KEYS} or not isinstance(content["split"], int):
        return {}
    try:
        test = msgspec.convert(content, _Test)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: not what a test writes: {error}") from None
    return asdict(test)


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
