"""The views of a video -> its score: the mean of the network's logits; all videos' scores."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from engine import UsageError, distributed
from engine.loading import ClipViews, in_batches
from engine.testing.stream import Stream


@torch.inference_mode()
def score_videos(
    stream: Stream, clips: Iterable[ClipViews]
) -> Iterator[tuple[int, np.ndarray, np.ndarray, str]]:
    """Each video's row, the mean of all its views' logits, float32 (classes,), and of each clip's,
    (clips, classes), and ""; or, where a clip cannot be read or its logits are not finite, NaN,
    and the reason.
    """

    def logits_of(batch: np.ndarray, rows: list[int]) -> np.ndarray:
        stream.order.start(rows)
        try:
            inputs = stream.prepare(torch.from_numpy(batch).to(stream.device))
            logits = stream.model.classify(stream.encode(inputs), stream.order)
            return logits.float().cpu().numpy()
        except (MemoryError, RuntimeError) as error:
            if not distributed.lacks_memory(error):
                raise
            folder = stream.split.val[rows[0]].folder
            raise UsageError(
                f"no memory for {len(rows)} views of '{folder}' at once; try --batch-size 1"
            ) from None

    def name_of(row: int) -> str:
        record = stream.split.val[row]
        return f"{record.line}: '{record.folder}'"

    yield from score_clips(
        clips, stream.batch_size, logits_of, name_of, len(stream.split.class_names)
    )


def score_clips(
    clips: Iterable[ClipViews],
    batch_size: int,
    logits_of: Callable[[np.ndarray, list[int]], np.ndarray],
    name_of: Callable[[int], str],
    classes: int,
) -> Iterator[tuple[int, np.ndarray, np.ndarray, str]]:
    """What `score_videos` yields, for any network.

    Args:
        clips: those of a video together.
        logits_of: a batch of views and their videos' rows -> (views, classes).
        name_of: a video's row -> what an error calls it.
    """
    scored = in_batches(clips, batch_size, logits_of)
    for row, video in itertools.groupby(scored, key=lambda found: found[0].row):
        errors, logits = zip(*((clip.error, own) for clip, own in video), strict=True)
        error = next(filter(None, errors), "")
        if not error and not all(np.isfinite(own).all() for own in logits):
            error = f"{name_of(row)}: the network's scores are not finite"
        if error:
            nothing = np.full(classes, np.nan, np.float32)
            yield row, nothing, nothing[None], error
            continue
        by_clip = torch.from_numpy(np.stack(logits))  # (clips, crops, classes)
        mean = by_clip.flatten(0, 1).mean(dim=0)
        yield row, mean.numpy(), by_clip.mean(dim=1).numpy(), ""


def score_all(stream: Stream, show: bool = True) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores of all test videos, float32 (videos, classes), and of each one's clips.

    Several processes share the videos out, and all of them get all scores. `show`: a progress bar.

    A video that cannot be read, or whose scores are not finite, is recorded in `stream.unscored`;
    its scores are NaN, so it counts as wrong, and it has one clip, NaN as well.
    """
    rows = range(len(stream.split.val))[distributed.rank() :: distributed.world_size()]
    clips: list[np.ndarray] = []
    means = np.empty((len(rows), len(stream.split.class_names)), np.float32)
    bar = tqdm(
        score_videos(stream, stream.read(rows)),
        stream.spec.name,
        len(rows),
        unit="video",
        dynamic_ncols=True,
        disable=None if show and distributed.is_main() else True,  # None: without a terminal
    )
    for place, (row, mean, by_clip, error) in enumerate(bar):
        assert row == rows[place]
        means[place] = mean
        clips.append(by_clip)
        if error:
            stream.unscored[stream.split.val[row].folder] = error
    return _collect(stream, rows, means, clips)


def _collect(
    stream: Stream, rows: Sequence[int], means: np.ndarray, clips: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """All processes' scores in the list's order; `stream.unscored` becomes that of all."""
    records = stream.split.val
    scores = np.empty((len(records), means.shape[1]), np.float32)
    clip_scores: list[np.ndarray] = [means] * len(records)
    errors: dict[str, str] = {}
    for own, values, of_clips, unscored in distributed.gather(
        (rows, means, clips, stream.unscored)
    ):
        scores[own] = values
        for row, value in zip(own, of_clips, strict=True):
            clip_scores[row] = value
        errors |= unscored
    stream.unscored = {r.folder: errors[r.folder] for r in records if r.folder in errors}
    return scores, clip_scores
