"""Clips/s of each source, and how much of the time of decoding their JPEG files alone that takes.

    python scripts/benchmark.py loader

`of decode` is the headline: the time relative to a bare loop, `cv2.imdecode(data, 1)` on the same
JPEG bytes in a process of its own. Below 1 the loader, which also reads, resizes, crops, flips and
collects, is faster than that loop, which spends a third of its time on fresh memory for its images.
`kept` is the same loop with a C library told to keep freed memory: nothing but decoding.

All runs take turns, each in a process of its own, and the best of the repeats counts. Rows on one
core (workers 0) count processor time, which is what the clock shows on an idle machine; rows with
loader processes count the clock, and need an idle machine.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.clips import ClipDataset
from datasets.records import VideoRecord
from datasets.sources.choose import FOLDERS, PACKED, VIDEOS, choose_source
from datasets.sources.folders import USUAL_NAMES
from engine.cli.flag_types import positive
from scripts.benchmarks.harness import print_table, start_process, take_turns
from scripts.benchmarks.sample_data import FRAME_SIZE, SMALL_SIZE, make_dataset
from video_transforms import PLAIN, CenterCrop, Compose, MultiScaleCornerCrop, RandomHorizontalFlip

CLIP_FRAMES, VIDEO_FRAMES = 64, 72
NAMES = [f"video_{number}" for number in range(4)]
RESIZE = {112: SMALL_SIZE, 224: FRAME_SIZE}
KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


@dataclass(frozen=True)
class LoaderRow:
    """What is measured.

    Attributes:
        source: "decode" or "kept", the bare loops, or a kind of source.
        crop: pixels of the network's input.
        view: "centre" or "random" crop and flip; "scaled": random, decoded at a fraction.
        workers: loader processes; 0 loads in the measuring process, on one core.
    """

    source: str
    crop: int = 0
    view: str = ""
    workers: int = 0


DECODE, KEPT = LoaderRow("decode"), LoaderRow("kept")


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--video", type=Path, help="take the frames from it (a texture of 28 KB a frame)")
    add(
        "-j",
        "--workers",
        type=positive,
        default=os.cpu_count(),
        help="largest number of loader processes (%(default)s)",
    )
    add("--repeats", type=positive, default=9, help="measurements of each (%(default)s)")
    add("--clips", type=positive, default=8, help="clips a worker reads a time (%(default)s)")


def main(args: argparse.Namespace) -> list[dict]:
    rows = choose_rows(args.workers)
    with TemporaryDirectory(prefix="benchmark_") as folder, ExitStack() as stack:
        # data, and a process for each row
        root = Path(folder)
        make_dataset(root, NAMES, VIDEO_FRAMES, args.video)
        size = np.mean([p.stat().st_size for p in root.glob("*/*.jpg")])
        print(f"{CLIP_FRAMES} frames of 340x256, {size / 1000:.1f} KB each; {len(rows)} runs")
        asks = {row: start_row(row, root, args.clips, stack) for row in rows}
        turns = take_turns(asks, args.repeats)
    seconds = {row: min(own) for row, own in turns.items()}
    found = [
        asdict(row)
        | {
            "ms/clip": 1000 * own,
            "clips/s": 1 / own,
            "MB/s": CLIP_FRAMES * size / own / 1e6,  # of the JPEG files that the clips stand for
            "of decode": own / seconds[DECODE],
            "of kept": own / seconds[KEPT],
            "turns": turns[row],
        }
        for row, own in seconds.items()
    ]
    print_table(found, [name for name in found[0] if name != "turns"])
    return found


def choose_rows(workers: int) -> list[LoaderRow]:
    rows = [DECODE, KEPT]
    for crop in RESIZE:
        for source in (FOLDERS, PACKED, VIDEOS):
            views = ["centre", "random", *["scaled"] * (source == FOLDERS and crop == 112)]
            rows += [LoaderRow(source, crop, view) for view in views]
            rows += [LoaderRow(source, crop, "random", n) for n in range(1, workers + 1)]
    return rows


def start_row(row: LoaderRow, root: Path, clips: int, stack: ExitStack) -> Callable[[], float]:
    """Starts the process of a row, until `stack` ends; the function asks it for seconds a clip."""
    # clips from a loader
    if row not in (DECODE, KEPT):
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, context, _open_loader, (row, root, clips))
        stack.enter_context(pool)
        return lambda: pool.submit(_load).result()
    # a clip's files in a bare loop
    command = [sys.executable, Path(__file__).with_name("decode_loop.py")]
    command += sorted(root.glob(f"{NAMES[0]}/*.jpg"))[:CLIP_FRAMES]
    settings = KEEP_FREED if row == KEPT else {}
    return partial(start_process(command, "the decode loop", settings, stack), "")


_loader: DataLoader  # of a loader's process


def _open_loader(row: LoaderRow, root: Path, clips: int) -> None:
    global _loader
    torch.set_num_threads(1)
    if row.workers == 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = islice(cycle(NAMES), clips * max(1, row.workers))
    records = [VideoRecord(name, VIDEO_FRAMES, 0, "list:1") for name in names]
    size, training = RESIZE[row.crop], row.view != "centre"
    source = choose_source(root, USUAL_NAMES, "rgb", records[0], size, row.source)
    transform = CenterCrop(row.crop)
    if training:
        transform = Compose(MultiScaleCornerCrop(row.crop), RandomHorizontalFlip(PLAIN))
    reader = source.reader(size, row.view == "scaled")
    data = ClipDataset(records, reader, CLIP_FRAMES, transform, training)
    _loader = DataLoader(data, 1, num_workers=row.workers, persistent_workers=row.workers > 0)


def _load() -> float:
    clock = time.perf_counter if _loader.num_workers else time.process_time
    start = clock()
    number = sum(len(labels) for _, labels in _loader)
    return (clock() - start) / number
