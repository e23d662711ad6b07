"""Forward passes (model) or training steps (train): time, memory, share of the machine's rate.

    python scripts/benchmark.py model
    python scripts/benchmark.py train --arch 'rgb_r2plus1d*' --batch-sizes 1 2 4 8
    python scripts/benchmark.py model --against 93ddbfe          # compared with a commit's code
    python scripts/benchmark.py model --arch rgb_I3D64f --speed exact --profile trace.json

Random clips and random weights. A training step is forward, cross-entropy, backward and SGD. Each
variant, a preset or the code of --against, has a process of its own. They take turns of half a
second, or of one pass; the first turn does not count. A preset that means the same as another on
this machine is left out.

`ms/clip` is the median of the turns, `from` and `to` are the smallest and the largest (--json keeps
all, in seconds a clip). `x base` says how many times as fast as the first variant, turn by turn.
GMACs are a clip's multiplications with addition, forward. GFLOP/s counts two operations for each,
in training those of the backward pass, too. `MFU %` is the share of the rate at which the machine
multiplies matrices of the variant's type: the fastest of several sizes and layouts. Memory is the
peak of the process, on a GPU that of its tensors; `MB/clip` is what the passes add to it, divided
by the batch.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tqdm import tqdm

from datasets.files import check_writable
from datasets.hmdb51 import NUM_CLASSES
from engine import UsageError
from engine.cli.flag_types import path, positive
from engine.distributed import choose_device
from engine.metrics import MatrixRate, count_flops, matrix_rate, mfu
from models import create_model, get_arch
from models.backbones import BACKBONES
from scripts.benchmarks.harness import (
    Variant,
    add_shared_flags,
    choose_variants,
    compare_turns,
    match_archs,
    print_table,
    start_all,
    start_process,
    take_turns,
    thread_settings,
)
from scripts.benchmarks.machine import describe_machine
from scripts.benchmarks.profiler import print_profile

DEFAULT_ARCHS = (
    "rgb_resneXt3D64f101_bert10_FRMB",
    "rgb_r2plus1d_32f_34_bert10",
    "rgb_I3D64f_bert2",
)
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of products under mixed precision
PASS_COLUMNS = (
    "arch",
    "batch",
    "crop",
    "variant",
    "GMACs",
    "ms/clip",
    "from",
    "to",
    "clips/s",
    "GFLOP/s",
)
PASS_COLUMNS += ("MFU %", "peak MB", "MB/clip", "x base")


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_shared_flags(parser, DEFAULT_ARCHS, repeats=7)
    add = parser.add_argument
    add("--batch-sizes", type=positive, nargs="+", default=[2], help="clips in a batch (2)")
    add("--crops", type=positive, nargs="+", help="sides of the clips, pixels (the network's own)")
    add(
        "--profile",
        type=path,
        metavar="FILE",
        help="write a Chrome trace of one pass there; print its costliest operators and kernels",
    )


def main(args: argparse.Namespace) -> list[dict]:
    train = args.name == "train"
    # what is to be measured
    archs, device = match_archs(args.arch), choose_device(args.device)
    if args.profile:
        if max(len(archs), len(args.batch_sizes), len(args.speed)) > 1:
            raise UsageError("--profile needs one architecture, one batch size and one --speed")
        check_writable(args.profile.resolve().parent)
    if args.threads:
        torch.set_num_threads(args.threads)
    print(describe_machine(device, torch.get_num_threads()))
    # measure
    rows = []
    with ExitStack() as stack:
        variants = choose_variants(args.against, args.speed, stack)
        rounds = list(product(archs, args.batch_sizes, args.crops or [None]))
        for arch, batch, crop in tqdm(rounds, args.name):
            settings = {"arch": arch, "crop": crop or get_arch(arch).input.crop}
            settings |= {"batch_size": batch, "device": str(device), "train": train}
            rows += measure_variants(variants, settings, args.threads, args.repeats, args.profile)
    # report
    print_table(rows, PASS_COLUMNS)
    rates = dict((row["rate of"], row["rate"]) for row in rows if "rate" in row)
    for which, rate in rates.items():
        print(f"MFU is the share of {rate / 1e9:.1f} GFLOP/s: {which}")
    return rows


def measure_variants(
    variants: list[Variant], settings: dict, threads: int | None, repeats: int, trace: Path | None
) -> list[dict]:
    """A row for each variant of an architecture and a batch size; `settings` are worker.py's."""
    arch, batch, crop = settings["arch"], settings["batch_size"], settings["crop"]
    with ExitStack() as stack:
        starts = {v: lambda v=v: start_worker(v, settings, threads, stack) for v in variants}
        started, errors = start_all(starts)
        started = without_twins(started)
        turns = take_turns({v: lambda a=ask: a("turn") for v, (ask, _) in started.items()}, repeats)
        if trace and variants[-1] in started:
            print_profile(started[variants[-1]][0](f"profile {trace.resolve()}"), trace)
    measured = compare_turns({v: [turn["seconds"] for turn in own] for v, own in turns.items()})
    rows = []
    for variant in variants:
        row = {"arch": arch, "batch": batch, "crop": crop, "variant": variant.name}
        if variant in errors:
            rows.append(row | {"error": errors[variant]})
        elif variant in started:
            facts, last = started[variant][1], turns[variant][-1]
            rows.append(
                row | measured[variant] | make_row(settings, facts, last, measured[variant])
            )
    return rows


def make_row(settings: dict, facts: dict, memory: dict, measured: dict) -> dict[str, Any]:
    """What the table shows of a variant, and what the worker said of itself, its `facts`."""
    arch, crop, seconds = settings["arch"], settings["crop"], measured["seconds"]
    flops = flops_of(arch, crop, settings["train"])
    rate = rate_of(settings["device"], TYPES.get(facts["speed"]["amp"], torch.float32))
    return facts | {
        "GMACs": flops_of(arch, crop, False) / 2e9,
        "ms/clip": 1000 * seconds,
        "from": 1000 * measured["from"],
        "to": 1000 * measured["to"],
        "clips/s": 1 / seconds,
        "GFLOP/s": flops / seconds / 1e9,
        "MFU %": mfu(flops, 1 / seconds, rate.operations),
        "rate": rate.operations,
        "rate of": rate.which,
        "peak MB": memory["peak"] / 1e6,
        "MB/clip": (memory["peak"] - memory["before"]) / settings["batch_size"] / 1e6,
    }


def without_twins(started: dict[Variant, tuple]) -> dict[Variant, tuple]:
    """Those of `start_worker`'s variants whose presets differ on this machine, each once."""
    first: dict[tuple, Variant] = {}
    for variant, (_, facts) in started.items():
        speed = facts["speed"]
        meaning = variant.tree, speed["amp"], speed["channels_last"], speed["compile"]
        twin = first.setdefault(meaning, variant)
        if twin is not variant:
            print(f"left out: {variant.name} is {twin.name} on this machine", flush=True)
    return {variant: started[variant] for variant in first.values()}


def start_worker(
    variant: Variant, settings: dict, threads: int | None, stack: ExitStack
) -> tuple[Callable[[str], dict], dict]:
    """The process of a variant, after its first pass: what asks it, and what it says of itself."""
    text = json.dumps(settings | {"classes": NUM_CLASSES, "speed": variant.speed})
    command = [sys.executable, Path(__file__).with_name("worker.py"), variant.tree, text]
    title = f"{settings['arch']}, {variant.name}"
    ask = start_process(command, title, thread_settings(threads), stack)
    return ask, ask("start")


@cache
def flops_of(arch: str, crop: int, backward: bool) -> int:
    """Operations of one clip of `crop` pixels' side, forward or forward and backward."""
    spec = get_arch(arch)
    own, other = BACKBONES[spec.backbone].inputs, replace(spec.input, crop=crop)
    with torch.device("meta"), patch.dict(own, {spec.modality: other}):  # nothing is computed
        model = create_model(arch, NUM_CLASSES)
        return count_flops(model, torch.empty(1, *model.spec.clip_shape), backward)


@cache
def rate_of(device: str, dtype: torch.dtype) -> MatrixRate:
    """The machine's rate, measured once, while no variant has a turn."""
    return matrix_rate(torch.device(device), dtype)
