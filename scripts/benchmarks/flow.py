"""Optical flow: accuracy on synthetic motion with known truth, and speed, of every engine.

    python scripts/benchmark.py flow
    python scripts/benchmark.py flow --engines tvl1-torch --device cuda --pairs 512
    python scripts/benchmark.py flow --video VIDEO --update docs/FLOW.md

Shifts, turns and zooms are applied to real textures (built in: a photograph and a scene made by
formula; or frames of --image and --video files), sampled so that the displacement is known
exactly. The error is the mean distance, in pixels, between estimated and true displacement, over
all points that stay in the frame. Speed is of 340x256 colour frames in memory to displacement in
memory, in one process with --threads threads. The processor time beside it is worth more where
other work shares the machine.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets.files import write_lines
from datasets.flow.engines import FLOW_ENGINES, FlowEngine, create_flow
from datasets.lists import DataError
from engine import UsageError
from engine.distributed import choose_device
from engine.flag_types import positive
from scripts.benchmarks.motion import (
    HEIGHT,
    MOTIONS,
    WIDTH,
    Pair,
    built_in_textures,
    make_pair,
    read_textures,
)

BEGIN, END = "<!-- flow benchmark: begin -->", "<!-- flow benchmark: end -->"
KINDS = tuple(dict.fromkeys(motion.kind for motion in MOTIONS.values()))


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    names = ", ".join(FLOW_ENGINES)
    add("--engines", nargs="+", metavar="NAME", help=f"of {names}; default: all that can run")
    add("--device", help="of the engines in PyTorch; default: cuda if there is one")
    add("--image", type=Path, nargs="+", default=[], help="textures, instead of the built-in ones")
    add("--video", type=Path, nargs="+", default=[], help="likewise: frames 1, 101 and 201")
    add("--pairs", type=positive, default=1, help="time at least so many; each at least once")
    add(
        "--repeats", type=positive, default=3, help="time so often, report the median (%(default)s)"
    )
    add("--threads", type=positive, default=1, help="CPU threads (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all numbers there")
    add("--update", type=Path, metavar="FILE", help="write the table there, between its markers")


def choose_engines(names: list[str] | None, device: str) -> dict[str, FlowEngine]:
    """The engines by name; without names, all but those that lack weights, which it says."""
    engines = {}
    for name in names or FLOW_ENGINES:
        try:
            engines[name] = create_flow(name, device)
        except DataError as error:
            if names:
                raise
            print(f"without {name}: {error}")
    return engines


def measure(
    pairs: dict[tuple[str, str], Pair], engine: FlowEngine, at_least: int, repeats: int
) -> dict:
    """An engine's errors, texture -> motion -> pixels, and its speed.

    The first run of all pairs gives the errors and is not timed: it compiles and takes memory.
    """
    known = list(pairs.values())
    timed = known * -(-at_least // len(known))
    stacks = np.stack([pair.first for pair in timed]), np.stack([pair.second for pair in timed])
    errors: dict[str, dict] = {}
    for (texture, motion), pair, flow in zip(pairs, known, engine.between(*stacks), strict=False):
        errors.setdefault(texture, {})[motion] = pair.error(flow)
    solver = engine.pair_flow
    before = getattr(solver, "pixel_iterations", None)
    seconds, cpu = [], time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        engine.between(*stacks)  # returns arrays in the host's memory: the device has finished
        seconds.append(time.perf_counter() - start)
    result = {
        "errors": errors,
        "pairs": len(timed),
        "pairs_per_second": len(timed) / float(np.median(seconds)),
        "cpu_seconds_per_pair": (time.process_time() - cpu) / (repeats * len(timed)),
    }
    if before is not None:
        done = solver.pixel_iterations - before
        result["pixel_iterations_per_pair"] = done / (repeats * len(timed))
    return result


def describe_machine(device: torch.device, threads: int) -> str:
    """What a number was measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    text = f"{cpu}, {threads} of {os.cpu_count()} threads"
    if device.type == "cuda":
        text += f"; PyTorch's engines on {torch.cuda.get_device_name(device)}"
    return f"{text}; OpenCV {cv2.__version__}, PyTorch {torch.__version__}"


def table(results: dict[str, dict], textures: list[str], machine: str) -> list[str]:
    """Markdown: an engine a line."""
    lines = [
        f"Mean end-point error in pixels over the textures {', '.join(textures)}; pairs/s of "
        f"{WIDTH}x{HEIGHT} on {machine}.",
        "",
        f"| engine | {' | '.join(KINDS)} | all | pairs/s | CPU s a pair |",
        "|---" + "|--:" * (len(KINDS) + 3) + "|",
    ]
    for name, result in results.items():
        errors = [
            (MOTIONS[motion].kind, error)
            for motions in result["errors"].values()
            for motion, error in motions.items()
        ]
        numbers = [np.mean([error for k, error in errors if k == kind]) for kind in KINDS]
        numbers.append(np.mean([error for _, error in errors]))
        cells = [f"{number:.3f}" for number in numbers]
        cells += [f"{result[k]:.3g}" for k in ("pairs_per_second", "cpu_seconds_per_pair")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def update(path: Path, lines: list[str]) -> None:
    """Puts the lines between the markers of a file."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UsageError(f"{path} needs one line '{BEGIN}' and one '{END}', to write between")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    write_lines(path, (before + "\n".join([BEGIN, *lines, END]) + after).splitlines())


def main(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    device = choose_device(args.device)
    engines = choose_engines(args.engines, str(device))
    given = args.image or args.video
    textures = read_textures(args.image, args.video) if given else built_in_textures()
    pairs = {
        (name, motion): make_pair(texture, MOTIONS[motion])
        for name, texture in textures.items()
        for motion in MOTIONS
    }
    results = {}
    for name in tqdm(engines, "engines", dynamic_ncols=True, disable=None):
        results[name] = measure(pairs, engines[name], args.pairs, args.repeats)
    machine = describe_machine(device, args.threads)
    lines = table(results, list(textures), machine)
    print("\n".join(lines))
    for name, result in results.items():
        if "pixel_iterations_per_pair" in result:
            number = result["pixel_iterations_per_pair"] / 1e6
            print(f"{name}: {number:.1f} million pixel iterations a pair")
    if args.json:
        report = {"machine": machine, "size": [WIDTH, HEIGHT], "engines": results}
        write_lines(args.json, [json.dumps(report, indent=2)])
    if args.update:
        update(args.update, lines)
    return 0
