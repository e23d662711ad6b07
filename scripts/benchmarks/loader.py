"""Clips/s of each source, beside the floor: the same JPEG bytes decoded by OpenCV in a bare loop.

The ratio to the floor is the headline: below 1 the loader, which also reads, resizes, crops,
mirrors and collects, is faster than decoding alone. All runs take turns, each in a process of its
own, and the best of the repeats counts. Rows on one core (workers 0) count processor time, which
is what the clock shows on an idle machine; rows with loader processes need one.

There are two floors. The bare loop, `for data in images: cv2.imdecode(data, 1)` in a process of its
own, spends a third of its time on the page faults of its new images. `kept` is the same loop with a
C library told to keep freed memory: nothing but decoding.
"""

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.clips import ClipDataset
from datasets.lists import VideoRecord
from datasets.sources.choose import FOLDERS, PACKED, VIDEOS, choose_source
from engine.files import write_json
from engine.flag_types import positive
from scripts.benchmarks.sample_data import NAMES, make_dataset
from video_transforms import PLAIN, CenterCrop, Compose, MultiScaleCornerCrop, RandomHorizontalFlip

CLIP, FRAMES = 64, 72
RESIZE = {112: (170, 128), 224: (340, 256)}
KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


@dataclass(frozen=True)
class Row:
    """What is measured.

    Attributes:
        source: "floor", or a kind of source.
        crop: pixels of the network's input.
        workers: loader processes; 0 loads in the measuring process, on one core.
        scaled: decode at a fraction of the size.
        training: random crops and mirroring, or the centre.
        kept: of the floor: freed memory is kept.
    """

    source: str
    crop: int = 0
    workers: int = 0
    scaled: bool = False
    training: bool = True
    kept: bool = False


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--video", type=Path, help="take the frames from it (a texture of 28 KB a frame)")
    add("-j", "--workers", type=positive, default=os.cpu_count(), help="up to (%(default)s)")
    add("--repeats", type=positive, default=9, help="(%(default)s)")
    add("--clips", type=positive, default=8, help="of a repeat, for each worker (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the numbers there")


def main(args: argparse.Namespace) -> int:
    with TemporaryDirectory(prefix="benchmark_") as folder:
        root = Path(folder)
        folders = make_dataset(root, 4, FRAMES, args.video)
        size = np.mean([p.stat().st_size for p in root.glob("*/*.jpg")])
        rows = choose_rows(args.workers)
        print(f"{CLIP} frames of 340x256, {size / 1000:.1f} KB each; {len(rows)} runs take turns")
        seconds = measure(rows, root, folders, args.clips, args.repeats)
    report = [summary(row, seconds, size) for row in rows]
    print_table(report)
    if args.json:
        write_json(args.json, {"environment": environment(), "frame_bytes": size, "rows": report})
    return 0


def choose_rows(workers: int) -> list[Row]:
    rows = [Row("floor"), Row("floor", kept=True)]
    for crop in RESIZE:
        for source in (FOLDERS, PACKED, VIDEOS):
            rows += [Row(source, crop, training=False), Row(source, crop)]
            if source == FOLDERS and crop == 112:
                rows.append(Row(source, crop, scaled=True))
            rows += [Row(source, crop, number) for number in range(1, workers + 1)]
    return rows


def measure(
    rows: list[Row], root: Path, folders: list[str], clips: int, repeats: int
) -> dict[Row, float]:
    """Seconds a clip of each row, the best of the repeats."""
    runs = {
        row: (Floor if row.source == "floor" else Run)(row, root, folders, clips) for row in rows
    }
    try:
        times = {row: [run.seconds()] for row, run in runs.items()}  # the first warms up
        for _ in range(repeats):
            for row, run in runs.items():
                times[row].append(run.seconds())
    finally:
        for run in runs.values():
            run.end()
    return {row: min(values[1:]) for row, values in times.items()}


class Floor:
    """A process that decodes, and nothing else."""

    def __init__(self, row: Row, root: Path, folders: list[str], clips: int):
        paths = sorted((root / folders[0]).glob("*.jpg"))[:CLIP]
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("decode_loop.py"), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | (KEEP_FREED if row.kept else {}),
        )

    def seconds(self) -> float:
        print(file=self.process.stdin)
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate()


class Run:
    """A process that loads clips whenever it is asked to."""

    def __init__(self, row: Row, root: Path, folders: list[str], clips: int):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, row, root, folders, clips))
        self.process.start()
        theirs.close()

    def seconds(self) -> float:
        self.pipe.send(True)
        return self.pipe.recv()

    def end(self) -> None:
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection, row: Row, root: Path, folders: list[str], clips: int) -> None:
    torch.set_num_threads(1)
    if row.workers == 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    load = _loader(row, root, folders, clips)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        clock = time.perf_counter if row.workers else time.process_time
        start = clock()
        number = load()
        pipe.send((clock() - start) / number)


def _loader(row: Row, root: Path, folders: list[str], clips: int) -> Callable[[], int]:
    number = clips * max(1, row.workers)
    records = [VideoRecord(folders[i % len(folders)], FRAMES, 0, "list:1") for i in range(number)]
    size = RESIZE[row.crop]
    source = choose_source(root, NAMES, "rgb", records[0], size, row.source)
    transform = CenterCrop(row.crop)
    if row.training:
        transform = Compose(MultiScaleCornerCrop(row.crop), RandomHorizontalFlip(PLAIN))
    data = ClipDataset(records, source.reader(size, row.scaled), CLIP, transform, row.training)
    loader = DataLoader(
        data, batch_size=1, num_workers=row.workers, persistent_workers=row.workers > 0
    )
    return lambda: sum(len(labels) for _, labels in loader)


def summary(row: Row, seconds: dict[Row, float], frame_bytes: float) -> dict:
    own = seconds[row]
    return asdict(row) | {
        "milliseconds": round(1000 * own, 3),
        "clips_per_second": round(1 / own, 2),
        "jpeg_megabytes_per_second": round(CLIP * frame_bytes / own / 1e6, 1),
        "of_floor": round(own / seconds[Row("floor")], 3),
        "of_kept_floor": round(own / seconds[Row("floor", kept=True)], 3),
    }


def print_table(report: list[dict]) -> None:
    print("MB/s counts the 340x256 JPEG files that the clips stand for; workers 0: in the process,")
    print("on one core; `of floor` is time, `of kept` the same where freed memory is kept")
    print("source   crop  view    workers  ms/clip  clips/s    MB/s  of floor  of kept")
    for row in report:
        view = "random" if row["training"] else "centre"
        view = "" if row["source"] == "floor" else "scaled" if row["scaled"] else view
        source = "kept" if row["kept"] else row["source"]
        print(
            f"{source:<8} {row['crop'] or '':>4}  {view:<6}  {row['workers']:>7}  "
            f"{row['milliseconds']:7.2f}  {row['clips_per_second']:7.1f}  "
            f"{row['jpeg_megabytes_per_second']:6.1f}  {row['of_floor']:8.2f}  "
            f"{row['of_kept_floor']:7.2f}"
        )


def environment() -> dict:
    """What the numbers depend on."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "torch": torch.__version__,
    }
