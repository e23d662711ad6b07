"""Tests: the views of a video, its score, all videos' scores, two streams fused."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.clips import VideoDataset
from datasets.sampling import CLIP_RULES
from engine import UsageError, distributed
from engine.data import Stream, build_stream, frame_reader
from engine.files import resolve
from engine.metrics import fuse
from engine.report import print_summary, summarize_scores, write_results
from engine.testing.score_files import match_videos
from engine.testing.token_order import NORMAL, TimeOrder
from engine.tokens.dataset import build_cached_stream, score_cached
from video_transforms import NO_FLIP, crop_at, crop_corners, flip_clip


def views(
    images: np.ndarray, clips: Sequence[np.ndarray], size: int, ten_crop: bool, rule: str
) -> Iterator[np.ndarray]:
    """Every crop of every clip, uint8 (T, size, size, C), without copying a crop.

    Args:
        images: a video's decoded images (F, H, W, C).
        clips: index arrays (T,) into them.
        ten_crop: centre and corners, then the same of the mirrored frames; or the centre alone.
        rule: of mirroring; with NO_FLIP the mirrored five are left out.
    """
    corners = crop_corners(*images.shape[1:3], size)
    for frames in clips:
        clip = images[frames]
        if not ten_crop:
            yield crop_at(clip, *corners[0], size)
            continue
        for picture in (clip,) if rule == NO_FLIP else (clip, flip_clip(clip, rule)):
            for top, left in corners:
                yield crop_at(picture, top, left, size)


@torch.inference_mode()
def score_video(
    stream: Stream,
    images: np.ndarray,
    clips: Sequence[np.ndarray],
    ten_crop: bool,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of all views' logits, float32 (classes,), and of each clip's, (clips, classes)."""
    logits, batch = [], []
    for view in views(images, clips, stream.spec.input.crop, ten_crop, stream.flip):
        batch.append(view)
        if len(batch) == batch_size:
            logits.append(_batch_logits(stream, batch))
            batch = []
    if batch:
        logits.append(_batch_logits(stream, batch))
    every = torch.cat(logits)  # (clips x crops, classes), a clip's crops side by side
    by_clip = every.unflatten(0, (len(clips), -1)).mean(dim=1)
    return every.mean(dim=0).cpu().numpy(), by_clip.cpu().numpy()


def _batch_logits(stream: Stream, batch: list[np.ndarray]) -> torch.Tensor:
    clips = torch.from_numpy(np.stack(batch)).to(stream.device)
    return stream.model(stream.normalize(clips), stream.order).float()


def choose_batch_size(stream: Stream) -> int:
    """Views at once: what fills a GPU, and on a CPU what fits into its caches and memory."""
    return 10 if stream.device.type == "cuda" else 2


def score_all(
    stream: Stream,
    choose: Callable[[int, int], list[np.ndarray]],
    ten_crop: bool,
    batch_size: int | None,
    workers: int,
    scaled: bool = False,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores of all test videos, float32 (videos, classes), and of each one's clips.

    Several processes share the videos out, and all of them get all scores.

    A video that cannot be read is booked in `stream.unscored`; its scores are NaN, so it counts
    as wrong, and it has one clip, NaN as well.
    """
    batch_size = batch_size or choose_batch_size(stream)
    rows = range(len(stream.split.val))[distributed.rank() :: distributed.world_size()]
    records = [stream.split.val[row] for row in rows]
    reader = frame_reader(stream.spec, stream.split, scaled)
    loader = DataLoader(
        VideoDataset(records, reader, stream.spec.frames, choose),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=1 if workers else None,  # whole videos: few in memory at once
    )
    classes = len(stream.split.class_names)
    own = [np.full((1, classes), np.nan, np.float32) for _ in records]  # clips of each video
    means = np.full((len(records), classes), np.nan, np.float32)
    silent = None if distributed.is_main() else True  # None: where there is no terminal
    bar = tqdm(loader, stream.spec.name, unit="video", dynamic_ncols=True, disable=silent)
    for place, (images, clips, error) in enumerate(bar):
        if error:
            stream.unscored[records[place].folder] = error
            continue
        indices = [clip.numpy() for clip in clips]
        stream.order.start(rows[place])
        means[place], own[place] = score_video(
            stream, images.numpy(), indices, ten_crop, batch_size
        )
    return _collect(stream, rows, means, own)


def _collect(
    stream: Stream, rows: range, means: np.ndarray, clips: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """All processes' scores in the list's order; `stream.unscored` becomes that of all."""
    records = stream.split.val
    scores = np.empty((len(records), means.shape[1]), np.float32)
    clip_scores: list[np.ndarray] = [means] * len(records)
    errors: dict[str, str] = {}
    for part, values, of_clips, unscored in distributed.gather(
        (rows, means, clips, stream.unscored)
    ):
        scores[part] = values
        for row, value in zip(part, of_clips, strict=True):
            clip_scores[row] = value
        errors |= unscored
    stream.unscored = {r.folder: errors[r.folder] for r in records if r.folder in errors}
    return scores, clip_scores


def _score(
    args: argparse.Namespace, stream: Stream, clip_rule: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """All videos' scores and those of their clips, from the cache or from frames."""
    if stream.cache is not None:
        return score_cached(stream, clip_rule, args.ten_crop, args.batch_size)
    choose, scaled = CLIP_RULES[clip_rule], args.scaled_decoding
    return score_all(stream, choose, args.ten_crop, args.batch_size, args.workers, scaled)


def _test_stream(
    args: argparse.Namespace, stream: Stream, clip_rule: str
) -> tuple[np.ndarray, list[np.ndarray], dict]:
    """Scores a stream's videos, in its list's order, and prints the summary that it returns."""
    start = time.perf_counter()
    stream.order = TimeOrder(args.time_order)
    scores, clip_scores = _score(args, stream, clip_rule)
    summary = summarize_scores(scores, _labels(stream), time.perf_counter() - start)
    print_summary(stream.spec.name, summary)
    for error in stream.unscored.values():
        print(f"not scored, counts as wrong: {error}")
    return scores, clip_scores, summary | {"unscored": stream.unscored}


def run_test(args: argparse.Namespace, clip_rule: str) -> int:
    """Tests one network (`args.arch`, `args.checkpoint`) and writes its results."""
    build = build_cached_stream if args.cache else build_stream
    stream = build(args, args.arch, args.checkpoint)
    scores, clip_scores, summary = _test_stream(args, stream, clip_rule)
    about = _about(args, clip_rule, [stream]) | {"arch": stream.spec.name}
    about["checkpoint"] = str(stream.checkpoint)
    _write(args, stream.spec.name, clip_rule, [stream], scores, about | summary, clip_scores)
    return 1 if stream.unscored else 0


def run_fused_test(args: argparse.Namespace, clip_rule: str) -> int:
    """Tests an RGB and a flow network on the same videos, and their fusion."""
    build = build_cached_stream if args.cache else build_stream
    rgb, flow = streams = (
        build(args, args.arch_rgb, args.checkpoint_rgb),
        build(args, args.arch_flow, args.checkpoint_flow),
    )
    for stream, modality in ((rgb, "rgb"), (flow, "flow")):
        if stream.spec.modality != modality:
            raise UsageError(f"--arch_{modality} {stream.spec.name} is no {modality} network")
    listed = ([(r.folder, r.label, r.line) for r in stream.split.val] for stream in streams)
    order = match_videos(*listed, ("the RGB list", "the flow list"))
    start = time.perf_counter()
    rgb_scores, _, rgb_summary = _test_stream(args, rgb, clip_rule)
    flow_scores, _, flow_summary = _test_stream(args, flow, clip_rule)
    fused = fuse([rgb_scores, flow_scores[order]])
    summary = summarize_scores(fused, _labels(rgb), time.perf_counter() - start)
    print_summary("fused", summary)
    about = _about(args, clip_rule, streams) | {
        "streams": {rgb.spec.name: rgb_summary, flow.spec.name: flow_summary},
        "checkpoints": [str(stream.checkpoint) for stream in streams],
    }
    name = "+".join(stream.spec.name for stream in streams)
    _write(args, name, clip_rule, streams, fused, about | summary)
    return 1 if rgb.unscored or flow.unscored else 0


def _labels(stream: Stream) -> np.ndarray:
    return np.array([record.label for record in stream.split.val], np.int64)


def _about(args: argparse.Namespace, clip_rule: str, streams: Sequence[Stream]) -> dict:
    mirrored = all(stream.flip != NO_FLIP for stream in streams)
    return {
        "dataset": args.dataset,
        "split": args.split,
        "clips": clip_rule,
        "crops": (10 if mirrored else 5) if args.ten_crop else 1,
        "time_order": args.time_order,
    }


def _write(
    args: argparse.Namespace,
    name: str,
    clip_rule: str,
    streams: Sequence[Stream],
    scores: np.ndarray,
    summary: dict,
    clip_scores: Sequence[np.ndarray] = (),
) -> None:
    if not distributed.is_main():
        return
    split = streams[0].split
    crops = "ten" if args.ten_crop else "one"
    stem = f"{args.dataset}_{name}_split{args.split}_{clip_rule}_clip_{crops}_crop"
    if args.time_order != NORMAL:
        stem += f"_{args.time_order}"
    write_results(
        resolve(args.results, "results") / stem,
        _scores_path(args),
        [record.folder for record in split.val],
        _labels(streams[0]),
        scores,
        split.class_names,
        summary,
        clip_scores,
    )


def _scores_path(args: argparse.Namespace) -> Path | None:
    return resolve(args.scores, "") if args.scores else None
