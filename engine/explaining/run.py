"""Explains clips of video files, or the worst mistakes of a test, and writes what it finds."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from datasets import DataError
from datasets.sampling import single_clip
from engine import UsageError
from engine.applying.predictor import AppliedNetwork
from engine.applying.sources import VideoSource
from engine.data import normalization
from engine.explaining.clips import clip_of_video
from engine.explaining.film import film_explanation
from engine.explaining.pictures import Shown, draw_explanation
from engine.explaining.reasons import PASSES, Explanation, explain_clip
from engine.metrics import predicted_classes
from engine.testing.score_files import ScoreFile
from engine.testing.stream import Stream
from models import VideoNet

Tick = Callable[[int], object]  # is told how many passes of a network are done
Found = tuple[Shown, Explanation] | DataError  # an explanation, or why there is none


def explain_videos(
    applied: AppliedNetwork,
    sources: Sequence[VideoSource],
    at: float | None,
    asked: str | None,
    tick: Tick,
) -> Iterator[Found]:
    """One clip of each source: see `clip_of_video`; `asked` is the class to explain, by name."""
    network = applied.network
    target = None if asked is None else class_number(asked, network.classes)
    model = network.model.to(applied.device)
    for source in sources:
        try:
            shown = clip_of_video(applied, source, at)
            yield shown, _explain(model, shown, target, applied.device, tick)
        except (DataError, UsageError) as error:
            tick(PASSES)
            yield DataError(error if source.name in str(error) else f"{source.name}: {error}")


def explain_mistakes(
    stream: Stream, rows: Sequence[int], scores: ScoreFile, rate: float | None, tick: Tick
) -> Iterator[Found]:
    """The central clip of some of a test's videos, each with the class that the test predicts.

    Args:
        rows: as `find_mistakes` gives them.
        rate: frames a second of the videos, where that is known.
    """
    predicted = dict(zip(scores.videos, predicted_classes(scores.scores), strict=True))
    for row in rows:
        record = stream.split.val[row]
        clip = next(stream.read([row]))
        if clip.error:
            tick(PASSES)
            yield DataError(clip.error)
            continue
        first = int(single_clip(record.count, stream.spec.frames)[0][0])  # from 1
        start = (first - 1) / rate if rate else first
        shown = Shown(record.folder, np.ascontiguousarray(clip.views[0]), start, rate, record.label)
        target = int(predicted[record.folder])
        try:
            yield shown, _explain(stream.model, shown, target, stream.device, tick)
        except UsageError as error:
            tick(PASSES)
            yield DataError(f"{record.line}: '{record.folder}': {error}")


def _explain(
    model: VideoNet, shown: Shown, target: int | None, device: torch.device, tick: Tick
) -> Explanation:
    frames = torch.from_numpy(shown.frames)[None].to(device)
    return explain_clip(model, normalization(model.spec)(frames), target, lambda: tick(1))


def find_mistakes(stream: Stream, scores: ScoreFile, number: int) -> list[int]:
    """Rows of the test list: the wrong answers of a score file, the most certain first.

    How certain is the softmax of a video's scores. Raises UsageError for scores of another network
    or other classes, and if a wrongly classified video is not in the list.
    """
    tested = str(scores.metadata.get("arch", stream.spec.name))
    if stream.spec.name not in tested.split("+"):
        raise UsageError(f"{scores.path} has scores of {tested}, not of {stream.spec.name}")
    if list(scores.classes) != list(stream.split.class_names):
        raise UsageError(
            f"{scores.path} has other classes than the dataset '{stream.split.dataset}'"
        )
    answers = predicted_classes(scores.scores)
    certain = torch.from_numpy(scores.scores).softmax(1).amax(1).numpy()
    wrong = np.flatnonzero((answers != scores.labels) & (answers >= 0))
    chosen = wrong[np.argsort(-certain[wrong], kind="stable")][:number]
    rows = {record.folder: row for row, record in enumerate(stream.split.val)}
    missing = [scores.videos[place] for place in chosen if scores.videos[place] not in rows]
    if missing:
        raise UsageError(f"{scores.path} has a video '{missing[0]}' that is not in the test list")
    return [rows[scores.videos[place]] for place in chosen]


def class_number(asked: str, names: Sequence[str]) -> int:
    """The number of a class; raises UsageError, with the closest names, where there is none."""
    if asked in names:
        return list(names).index(asked)
    close = difflib.get_close_matches(asked, names, n=5, cutoff=0.4)
    shown = names if len(names) <= 20 else close or names[:5]
    raise UsageError(f"--class {asked}: the network does not know it; it knows {', '.join(shown)}")


def write_explanation(shown: Shown, found: Explanation, names: Sequence[str], stem: Path) -> dict:
    """Writes `<stem>.png` and `<stem>.mp4`; returns what the JSON says of the clip."""
    picture, film = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "mp4"))
    draw_explanation(shown, found, names, picture)
    film_explanation(shown, found, names, film)
    return describe_explanation(shown, found, names) | {"picture": picture.name, "film": film.name}


def describe_explanation(shown: Shown, found: Explanation, names: Sequence[str]) -> dict:
    """An explanation as plain values; times are in seconds, or frames where no rate is known."""
    rate = shown.rate or 1
    ranked = np.argsort(-found.probabilities)[:5]
    peak = np.unravel_index(found.gradcam.argmax(), found.gradcam.shape)
    over_space = found.gradcam.mean(axis=(1, 2))
    spans = [
        {
            "from": round(shown.start + first / rate, 4),
            "to": round(shown.start + after / rate, 4),
            "lost": round(float(lost), 4),
            "gradcam": round(float(over_space[first:after].mean()), 4),
        }
        for (first, after), lost in zip(found.spans.tolist(), found.lost, strict=True)
    ]
    return {
        "video": shown.name,
        "class": names[found.target],
        "probability": round(found.probability, 6),
        "label": None if shown.label is None else names[shown.label],
        "best": {names[k]: round(float(found.probabilities[k]), 6) for k in ranked},
        "time": "seconds" if shown.rate else "frames",
        "spans": spans,
        "gradcam_peak": {
            "time": round(shown.start + int(peak[0]) / rate, 4),
            "row": int(peak[1]),
            "column": int(peak[2]),
            "value": round(float(found.gradcam.max()), 4),
            "size": list(found.gradcam.shape[1:]),
        },
        "attention": {
            path or "all": own.round(5).tolist() for path, own in found.attention.items()
        },
        "no_attention": found.no_attention,
        "notes": list(shown.notes),
    }
