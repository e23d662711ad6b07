"""Whole ten-crop tests, from decoding to scores: seconds and memory of a video, by its length.

    python scripts/benchmark.py test                              # 4 clips of 64 frames, 40 views
    python scripts/benchmark.py test --lengths 280 2800 --against 93ddbfe
    python scripts/benchmark.py test --arch rgb_I3D64f --lengths 64 --repeats 1      # a first try

Runs scripts/eval/spatial_demo3D.py, of this code with each preset or of the code of --against, on
frames that it makes. Each run is a new process, and all variants take turns. `s/video` is what a
list of a video of one clip and the video takes, less what the list of the first alone takes: that
one, `first s`, also holds what a process does once, such as compiling. `of passes` divides
`s/video` by the time of as many bare forward passes of the same variant (see `model`), in batches
of this code's choice, which take their turns between the tests. `x base` says how many times as
fast as the first variant. `peak MB` is the peak of the resident memory of a test with the video.
Without loader processes (-j 0) everything runs in one process and counts in full.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from datasets.files import write_lines
from datasets.hmdb51 import NUM_CLASSES
from datasets.sampling import multi_clip
from datasets.specs import unnamed_classes
from engine import UsageError
from engine.cli.flag_types import non_negative, path, positive
from engine.distributed import choose_device
from engine.files import save_atomically
from engine.speed import views_at_once
from models import create_model, get_arch
from scripts.benchmarks.harness import (
    EAGER,
    Variant,
    add_shared_flags,
    choose_variants,
    compare_turns,
    match_archs,
    print_table,
    start_all,
    take_turns,
    thread_settings,
)
from scripts.benchmarks.machine import describe_machine
from scripts.benchmarks.model import start_worker
from scripts.benchmarks.sample_data import make_frames

CROPS = 10
TEST_COLUMNS = (
    "arch",
    "frames",
    "views",
    "variant",
    "s/video",
    "from",
    "to",
    "first s",
    "of passes",
)
TEST_COLUMNS += ("peak MB", "x base")


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_shared_flags(parser, ("rgb_I3D64f",), repeats=3)
    add = parser.add_argument
    add(
        "--lengths",
        type=positive,
        nargs="+",
        default=[280],
        help="lengths of the videos, frames (280)",
    )
    add("--batch-size", type=positive, help="views at once (each code's own choice)")
    add("--video", type=path, help="take the frames from it (a texture)")
    add("-j", "--workers", type=non_negative, default=0, help="processes that load (%(default)s)")


def main(args: argparse.Namespace) -> list[dict]:
    archs, device = match_archs(args.arch), choose_device(args.device)
    for arch in archs:
        if get_arch(arch).modality != "rgb":
            raise UsageError(f"{arch} takes flow, and the videos have none; choose an RGB --arch")
    flags = ["--workers", args.workers, "--device", device]
    flags += ["--batch-size", args.batch_size] if args.batch_size else []
    batch_size = args.batch_size or views_at_once(device)
    settings = {"batch_size": batch_size, "device": str(device), "train": False}
    print(describe_machine(device, args.threads or torch.get_num_threads()))
    rows = []
    with ExitStack() as stack:
        variants = choose_variants(args.against, args.speed, stack)
        root = Path(stack.enter_context(TemporaryDirectory(prefix="benchmark_")))
        longest = max(*args.lengths, *(get_arch(arch).frames for arch in archs))
        for video in ("first", "video"):
            make_frames(root / "frames" / video, longest, args.video)
        for arch, length in tqdm(list(product(archs, args.lengths)), "tests"):
            data = make_lists(root, arch, length)
            test = partial(time_test, data, arch, flags, args.threads)
            own = {"arch": arch, "crop": get_arch(arch).input.crop}
            rows += measure_tests(variants, settings | own, length, test, args)
    print_table(rows, TEST_COLUMNS)
    return rows


def make_lists(root: Path, arch: str, length: int) -> Path:
    """A folder of lists and random weights: split 1 is a video of one clip, split 2 that and one
    of `length` frames. Images are in `root / "frames"`, perhaps more than the lists say."""
    data = root / f"{arch}_{length}"
    lists, first = data / "benchmark", f"first {get_arch(arch).frames} 0"
    lists.mkdir(parents=True)
    write_lines(lists / "classes.txt", unnamed_classes(NUM_CLASSES))
    write_lines(lists / "val_rgb_split1.txt", [first])
    write_lines(lists / "val_rgb_split2.txt", [first, f"video {length} 1"])
    torch.manual_seed(0)
    state = create_model(arch, NUM_CLASSES).state_dict()
    save_atomically({"arch": arch, "state_dict": state}, data / "weights.pth.tar")
    return data


def time_test(
    data: Path, arch: str, flags: list, threads: int | None, variant: Variant, split: int
) -> tuple[float, float]:
    """A test script's (seconds, peak bytes) for all of a list; raises UsageError if it fails."""
    peak, results = data / "peak.txt", data / "results"
    command = [sys.executable, Path(__file__).with_name("memory.py"), peak]
    command += [variant.tree / "scripts/eval/spatial_demo3D.py", "--arch", arch, *flags]
    command += ["--dataset", "benchmark", "--settings", data, "--frames", data.parent / "frames"]
    command += ["--checkpoint", data / "weights.pth.tar", "--results", results, "--split", split]
    if variant.speed != EAGER:
        command += ["--speed", variant.speed]
    environment = os.environ | thread_settings(threads)
    ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    if ran.returncode:
        reason = ran.stderr.strip().splitlines()[-1:] or [f"exit code {ran.returncode}"]
        raise UsageError(f"{arch}, {variant.name}: {reason[0]}")
    stem = f"benchmark_{arch}_split{split}_multi_clip_ten_crop"
    summary = json.loads((results / f"{stem}.json").read_text())
    return summary["seconds_per_video"] * summary["videos"], float(peak.read_text())


def measure_tests(
    variants: list[Variant],
    settings: dict,
    length: int,
    test: Callable[[Variant, int], tuple[float, float]],
    args: argparse.Namespace,
) -> list[dict]:
    """A row for each variant of an architecture and a length.

    Args:
        settings: of worker.py, for the bare passes.
        test: (variant, split) -> seconds and peak bytes of the test of that list.
    """
    arch = settings["arch"]
    views = CROPS * len(multi_clip(length, get_arch(arch).frames))

    def start(variant: Variant, stack: ExitStack) -> Callable[[], dict[str, float]]:
        test(variant, 1)  # to leave out at once what cannot run, and to fill compilers' caches
        ask, _ = start_worker(variant, settings, args.threads, stack)

        def turn() -> dict[str, float]:
            first, _ = test(variant, 1)
            both, peak = test(variant, 2)
            passes = views * ask("turn")["seconds"]
            return {"first": first, "video": both - first, "peak": peak, "passes": passes}

        return turn

    with ExitStack() as stack:
        asks, errors = start_all({v: partial(start, v, stack) for v in variants})
        turns = take_turns(asks, args.repeats, warm_up=0)
    measured = compare_turns({v: [turn["video"] for turn in own] for v, own in turns.items()})
    rows = []
    for variant in variants:
        row = {"arch": arch, "frames": length, "views": views, "variant": variant.name}
        if variant in errors:
            rows.append(row | {"error": errors[variant]})
            continue
        own, numbers = turns[variant], measured[variant]
        found = {
            "s/video": numbers.pop("seconds"),
            "first s": median(turn["first"] for turn in own),
            "of passes": median(turn["video"] / turn["passes"] for turn in own),
            "peak MB": max(turn["peak"] for turn in own) / 1e6,
        }
        rows.append(row | numbers | found | {"turns": own})
    return rows
