"""Optical flow engines: errors on known motion and speed; or TV-L1 compared with OpenCV's.

    python scripts/benchmark.py flow
    python scripts/benchmark.py flow --engines tvl1-torch --device cuda --pairs 512
    python scripts/benchmark.py flow --video VIDEO ... --pairs 6     # tvl1-torch and OpenCV's TV-L1

Known motion: shifts, turns and zooms of two textures, sampled so that the displacement of each
pixel is exact. The error is the mean distance in pixels between estimate and truth, over all points
that stay in the frame. Speed: 340x256 colour frames in memory to displacement in memory, in one
process. Compare processor time where other work shares the machine.

With --video: the mean difference of the two TV-L1 on pairs of frames spread over each video; last,
the difference that a first frame brighter by 0.001 grey levels makes to OpenCV's: rounding alone.
"""

import argparse
import time
import timeit
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from tqdm import tqdm

from datasets.files import DataError, write_lines
from datasets.flow.engines import FLOW_ENGINES, FlowEngine, create_flow, encode_flow
from datasets.sources.videos import read_frames
from engine import UsageError
from engine.cli.flag_types import positive
from engine.distributed import choose_device
from scripts.benchmarks.machine import describe_machine
from scripts.benchmarks.sample_data import FRAME_SIZE, MARGIN, dead_leaves, photograph

MARKERS = "<!-- flow benchmark: begin -->", "<!-- flow benchmark: end -->"
WITHOUT_WEIGHTS = ("dis", "tvl1", "farneback", "tvl1-torch")  # nothing to download
MOTIONS = {  # kind -> arguments of make_pair
    "short shifts": [dict(dx=1), dict(dx=0.5, dy=-0.25), dict(dx=-3.5, dy=2.25)],
    "long shifts": [dict(dx=8, dy=5), dict(dx=-15, dy=10)],
    "turns": [dict(degrees=1), dict(degrees=-4)],
    "zooms": [dict(zoom=1.02), dict(zoom=0.94)],
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--engines", nargs="+", default=WITHOUT_WEIGHTS, help=f"some of {', '.join(FLOW_ENGINES)}")
    add("--device", help="where PyTorch's engines compute (cuda if there is one)")
    add("--video", type=Path, nargs="+", help="compare the two TV-L1 on these videos instead")
    add("--pairs", type=positive, default=8, help="frame pairs, of each video (%(default)s)")
    add("--distance", type=positive, default=1, help="frames from one to the other (%(default)s)")
    add(
        "--repeats",
        type=positive,
        default=3,
        help="measurements, of which the median counts (%(default)s)",
    )
    add(
        "--threads",
        type=positive,
        default=1,
        help="threads that OpenCV and PyTorch use (%(default)s)",
    )
    add("--update", type=Path, metavar="FILE", help="write the table there, between its markers")


def main(args: argparse.Namespace) -> list[dict]:
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    device = choose_device(args.device)
    if args.video:
        rows = [compare_tvl1(path, args.pairs, args.distance, str(device)) for path in args.video]
        print(tabulate(rows, "keys", "pipe", floatfmt=("", "", ".2f", ".4f", ".3f", ".4f")))
        return rows
    engines = [create_flow(name, str(device)) for name in args.engines]
    textures = {"photo": photograph(), "leaves": dead_leaves(np.random.default_rng(0))}
    kinds = [(kind, motion) for kind, motions in MOTIONS.items() for motion in motions]
    pairs = [(kind, make_pair(t, **motion)) for t in textures.values() for kind, motion in kinds]
    rows = [
        {"engine": f"`{engine.name}`"} | measure_engine(engine, pairs, args)
        for engine in tqdm(engines, "engines", dynamic_ncols=True, disable=None)
    ]
    text = f"Mean end-point error in pixels over the textures {', '.join(textures)}; pairs/s of "
    text += f"340x256 on {describe_machine(device, args.threads)}.\n\n"
    text += tabulate(rows, "keys", "pipe", floatfmt=[".3f"] * 6 + [".3g"] * 2)
    print(text)
    if args.update:
        update_table(args.update, text)
    return rows


class Pair(NamedTuple):
    """Two frames, BGR uint8 (H, W, 3), and the displacement (2, H, W) in pixels, where `seen`."""

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    seen: np.ndarray  # bool (H, W): the point lies in the second frame, too

    def error(self, flow: np.ndarray) -> float:
        """Mean end-point error in pixels of an estimate (2, H, W)."""
        return float(np.hypot(*(flow - self.flow))[self.seen].mean())


def make_pair(
    texture: np.ndarray, dx: float = 0, dy: float = 0, degrees: float = 0, zoom: float = 1
) -> Pair:
    """A texture (H + 2 MARGIN, W + 2 MARGIN, 3), turned and zoomed about its centre, then shifted.

    The first frame's pixel x shows the texture at x, so does the second's pixel M(x): it shows,
    at y, the texture at the inverse of M. Bicubic, in float64, so that no place is rounded.
    """
    width, height = FRAME_SIZE
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = zoom * np.array([[cos, -sin], [sin, cos]])
    places = np.stack(np.mgrid[:height, :width][::-1]).astype(np.float64)
    last = np.array([width - 1, height - 1])[:, None, None]
    centre, shift = last / 2, np.array([dx, dy])[:, None, None]
    moved = np.einsum("ij,jhw->ihw", matrix, places - centre) + centre + shift
    back = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), places - centre - shift) + centre
    seen = ((moved >= 0) & (moved <= last)).all(0)
    first, second = (_sample(texture, at + MARGIN) for at in (places, back))
    return Pair(first, second, (moved - places).astype(np.float32), seen)


def _sample(texture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The texture, uint8 (h, w, 3), at places (2, H, W) in its pixels; beyond, its border."""
    image = torch.from_numpy(texture).permute(2, 0, 1)[None].double()
    scale = 2 / (np.array(texture.shape[1::-1]) - 1)[:, None, None]
    grid = torch.from_numpy(np.moveaxis(places * scale - 1, 0, -1))[None]
    values = F.grid_sample(image, grid, "bicubic", "border", align_corners=True)
    return values[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def measure_engine(
    engine: FlowEngine, pairs: list[tuple[str, Pair]], args: argparse.Namespace
) -> dict[str, float]:
    """A row of the table: mean errors of each kind of motion and of all, and the speed.

    The first run of all pairs gives the errors and is not timed: it compiles and takes memory.
    """
    # errors
    timed = [pair for _, pair in pairs] * -(-args.pairs // len(pairs))
    stacks = np.stack([pair.first for pair in timed]), np.stack([pair.second for pair in timed])
    flows = engine.between(*stacks)
    errors = np.array([pair.error(flow) for (_, pair), flow in zip(pairs, flows, strict=False)])
    kinds = np.array([kind for kind, _ in pairs])
    row = {kind: errors[kinds == kind].mean() for kind in MOTIONS} | {"all": errors.mean()}
    # speed
    before = getattr(engine.pair_flow, "pixel_iterations", None)
    cpu = time.process_time()
    # what it returns lies in the host's memory: the device has finished
    seconds = timeit.repeat(lambda: engine.between(*stacks), number=1, repeat=args.repeats)
    cpu, done = time.process_time() - cpu, args.repeats * len(timed)
    if before is not None:
        number = (engine.pair_flow.pixel_iterations - before) / done / 1e6
        print(f"{engine.name}: {number:.1f} million pixel iterations a pair")
    return row | {"pairs/s": len(timed) / np.median(seconds), "CPU s a pair": cpu / done}


def update_table(path: Path, table: str) -> None:
    """Writes the table between the markers of a file; raises UsageError without them."""
    text = path.read_text(encoding="utf-8")
    if any(text.count(marker) != 1 for marker in MARKERS):
        raise UsageError(f"{path} needs one line '{MARKERS[0]}' and one '{MARKERS[1]}'")
    head, tail = text.partition(MARKERS[0])[0], text.partition(MARKERS[1])[2]
    write_lines(path, f"{head}{MARKERS[0]}\n{table}\n{MARKERS[1]}{tail}".splitlines())


def compare_tvl1(path: Path, number: int, distance: int, device: str) -> dict:
    """tvl1-torch and OpenCV's TV-L1 on `number` pairs of a video's frames: a row of the table."""
    try:
        frames = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f in read_frames(path, FRAME_SIZE)]
    except DataError as error:
        raise DataError(f"cannot read the video {path}: {error}") from None
    if len(frames) <= distance:
        raise DataError(f"{path} has {len(frames)} frames; at least {distance + 1} are needed")
    starts = np.unique(np.linspace(0, len(frames) - 1 - distance, number).round().astype(int))
    first, second = (np.stack([frames[start + d] for start in starts]) for d in (0, distance))
    opencv = create_flow("tvl1")
    expected = opencv.between(first, second)
    ours = create_flow("tvl1-torch", device).between(first, second)
    # OpenCV expects floating-point images from 0 to 1.
    bright, grey = (first + np.float32(1e-3)) / np.float32(255), second / np.float32(255)
    itself = opencv.pair_flow(bright, grey)
    images = [encode_flow(flow, 20.0).astype(int) for flow in (ours, expected)]
    return {
        "video": path.name,
        "pairs": len(starts),
        "mean motion (px)": float(np.linalg.norm(expected, axis=1).mean()),
        "difference (px)": float(np.linalg.norm(ours - expected, axis=1).mean()),
        "of images (grey levels)": np.abs(images[0] - images[1]).mean(),
        "OpenCV, brightened (px)": float(np.linalg.norm(itself - expected, axis=1).mean()),
    }
