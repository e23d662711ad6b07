"""A whole test: one network's scores, or two streams' and their fusion, written and reported.

python scripts/eval/spatial_demo3D.py --arch rgb_I3D64f_bert2 --dataset hmdb51
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.files import check_writable, printable
from engine import UsageError, distributed
from engine.config import TestConfig
from engine.data import data_folder, lists_folder
from engine.files import resolve
from engine.metrics import fuse
from engine.testing.report import print_summary, summarize_scores, write_results
from engine.testing.score import score_all
from engine.testing.score_files import match_videos
from engine.testing.stream import Stream, build_stream
from engine.testing.token_order import NORMAL
from video_transforms import NO_FLIP

Network = tuple[str, Path | None]  # architecture, checkpoint or None for the run's best model


def run_test(config: TestConfig, network: Network) -> int:
    """Tests one network and writes its results; returns the exit code."""
    _check_outputs(config)
    stream = build_stream(config, *network)
    scores, clip_scores, summary = _test_stream(stream)
    metadata = _metadata(config, [stream]) | {
        "arch": stream.spec.name,
        "checkpoint": str(stream.checkpoint),
    }
    _write(config, stream.spec.name, [stream], scores, metadata | summary, clip_scores)
    return 1 if stream.unscored else 0


def run_fused_test(config: TestConfig, rgb_network: Network, flow_network: Network) -> int:
    """Tests an RGB and a flow network on the same videos, and their fusion."""
    _check_outputs(config)
    rgb, flow = streams = [build_stream(config, *n) for n in (rgb_network, flow_network)]
    for stream, modality in ((rgb, "rgb"), (flow, "flow")):
        if stream.spec.modality != modality:
            raise UsageError(f"--arch_{modality} {stream.spec.name} is no {modality} network")
    listed = ([(r.folder, r.label, r.line) for r in stream.split.val] for stream in streams)
    order = match_videos(*listed, ("the RGB list", "the flow list"))
    # test
    start = time.perf_counter()
    rgb_scores, _, rgb_summary = _test_stream(rgb)
    flow_scores, _, flow_summary = _test_stream(flow)
    # fuse
    fused = fuse([rgb_scores, flow_scores[order]])
    summary = summarize_scores(fused, rgb.labels, time.perf_counter() - start)
    summary["chosen_on_these_videos"] = rgb.chosen_here or flow.chosen_here
    print_summary("fused", summary)
    metadata = _metadata(config, streams) | {
        "streams": {rgb.spec.name: rgb_summary, flow.spec.name: flow_summary},
        "checkpoints": [str(stream.checkpoint) for stream in streams],
    }
    name = "+".join(stream.spec.name for stream in streams)
    parts = {rgb.spec.name: rgb_scores, flow.spec.name: flow_scores[order]}
    _write(config, name, streams, fused, metadata | summary, stream_scores=parts)
    return 1 if rgb.unscored or flow.unscored else 0


def _check_outputs(config: TestConfig) -> None:
    """Raises OSError, before the test, where its results could not be written."""
    if distributed.is_main():
        check_writable(resolve(config.results, "results"))
        if config.scores:
            check_writable(resolve(config.scores, "").parent)


def _test_stream(stream: Stream) -> tuple[np.ndarray, list[np.ndarray], dict]:
    """Scores a stream's videos, in its list's order, and prints the summary that it returns."""
    start = time.perf_counter()
    scores, clip_scores = score_all(stream)
    summary = summarize_scores(scores, stream.labels, time.perf_counter() - start)
    summary["chosen_on_these_videos"] = stream.chosen_here
    print_summary(stream.spec.name, summary)
    for error in stream.unscored.values():
        print(f"not scored, counts as wrong: {error}")
    return scores, clip_scores, summary | {"unscored": stream.unscored}


def _metadata(config: TestConfig, streams: Sequence[Stream]) -> dict:
    flipped = all(stream.flip != NO_FLIP for stream in streams)
    return {
        "dataset": config.data.dataset,
        "split": config.data.split,
        "clips": config.clips,
        "crops": (10 if flipped else 5) if config.ten_crop else 1,
        "time_order": config.time_order,
        # where the videos are, and what data they are
        "settings": printable(str(lists_folder(config.data))),
        "frames": printable(str(data_folder(config.data))),
        "data": {
            f"{stream.spec.modality}, {what}": line
            for stream in streams
            for what, line in stream.data.items()
        },
    }


def _write(
    config: TestConfig,
    name: str,
    streams: Sequence[Stream],
    scores: np.ndarray,
    summary: dict,
    clip_scores: Sequence[np.ndarray] = (),
    stream_scores: Mapping[str, np.ndarray] | None = None,
) -> None:
    if not distributed.is_main():
        return
    split = streams[0].split
    stem, scores_file = result_files(config, name)
    write_results(
        stem,
        scores_file,
        [record.folder for record in split.val],
        streams[0].labels,
        scores,
        split.class_names,
        summary,
        clip_scores,
        stream_scores,
    )


def result_files(config: TestConfig, name: str) -> tuple[Path, Path]:
    """A test's results without their suffixes, and its score file.

    `name` is the architecture, of a fusion both, joined by "+".
    """
    data, crops = config.data, "ten" if config.ten_crop else "one"
    stem = f"{data.dataset}_{name}_split{data.split}_{config.clips}_clip_{crops}_crop"
    if config.time_order != NORMAL:
        stem += f"_{config.time_order}"
    path = resolve(config.results, "results") / stem
    return path, resolve(config.scores, "") if config.scores else Path(f"{path}.npz")
