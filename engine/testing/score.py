"""The views of a video -> its score: the mean of the network's logits; all videos' scores."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from engine import distributed
from engine.testing.stream import Stream, VideoViews


@torch.inference_mode()
def score_video(stream: Stream, video: VideoViews) -> tuple[np.ndarray, np.ndarray]:
    """The mean of all views' logits, float32 (classes,), and of each clip's, (clips, classes)."""
    logits, shown = [], iter(video.views)
    while batch := list(itertools.islice(shown, stream.batch_size)):
        inputs = stream.prepare(torch.from_numpy(np.stack(batch)).to(stream.device))
        logits.append(stream.model(inputs, stream.order).float())
    every = torch.cat(logits)  # (clips x crops, classes), a clip's crops side by side
    by_clip = every.unflatten(0, (video.clips, -1)).mean(dim=1)
    return every.mean(dim=0).cpu().numpy(), by_clip.cpu().numpy()


def score_all(stream: Stream, show: bool = True) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores of all test videos, float32 (videos, classes), and of each one's clips.

    Several processes share the videos out, and all of them get all scores. `show`: a progress bar.

    A video that cannot be read, or whose scores are not finite, is recorded in `stream.unscored`;
    its scores are NaN, so it counts as wrong, and it has one clip, NaN as well.
    """
    rows = range(len(stream.split.val))[distributed.rank() :: distributed.world_size()]
    classes = len(stream.split.class_names)
    clips = [np.full((1, classes), np.nan, np.float32) for _ in rows]
    means = np.full((len(rows), classes), np.nan, np.float32)
    bar = tqdm(
        stream.read(rows),
        stream.spec.name,
        len(rows),
        unit="video",
        dynamic_ncols=True,
        disable=None if show and distributed.is_main() else True,  # None: without a terminal
    )
    for place, (row, video) in enumerate(zip(rows, bar, strict=True)):
        if video.error:
            stream.unscored[stream.split.val[row].folder] = video.error
            continue
        stream.order.start(row)
        mean, of_clips = score_video(stream, video)
        if np.isfinite(mean).all() and np.isfinite(of_clips).all():
            means[place], clips[place] = mean, of_clips
        else:
            record = stream.split.val[row]
            stream.unscored[record.folder] = f"{record.line}: {record.folder}: non-finite scores"
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
