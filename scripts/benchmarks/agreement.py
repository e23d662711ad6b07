"""How far `tvl1-torch` is from OpenCV's DualTVL1, on frames of real videos.

    python scripts/benchmark.py agreement VIDEO ... --pairs 8 --distance 1

Pairs are spread over each video, whose frames are stretched to 340x256 as in a preparation. For
scale, the same difference for OpenCV's algorithm with itself, the first frame being brightened
by a thousandth of a grey level: where the flow is not determined, rounding decides.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.flow.engines import create_flow, encode_flow
from datasets.lists import DataError
from engine.distributed import choose_device
from engine.flag_types import positive
from scripts.benchmarks.motion import video_frames

SIZE = (340, 256)
BOUND = 20.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEO")
    add("--pairs", type=positive, default=8, help="of each video (%(default)s)")
    add("--distance", type=positive, default=1, help="frames from first to second (%(default)s)")
    add("--device", help="of tvl1-torch; default: cuda if there is one")


def read_pairs(path: Path, number: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey frame pairs, twice (number, H, W), evenly spread over a video."""
    frames = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in video_frames(path, SIZE)]
    if len(frames) <= distance:
        raise DataError(f"{path} has {len(frames)} frames; at least {distance + 1} are needed")
    starts = np.unique(np.linspace(0, len(frames) - 1 - distance, number).round().astype(int))
    first = np.stack([frames[start] for start in starts])
    return first, np.stack([frames[start + distance] for start in starts])


def differences(flow: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean end-point difference in pixels, and of the encoded images in grey levels."""
    images = [encode_flow(each, BOUND).astype(int) for each in (flow, other)]
    distance = np.hypot(*np.moveaxis(flow - other, 1, 0))
    return float(distance.mean()), float(np.abs(images[0] - images[1]).mean())


def brightened(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """OpenCV's flow where the first frame is 0.001 grey levels brighter."""
    engine = cv2.optflow.DualTVL1OpticalFlow.create()
    flows = []
    for one, other in zip(first, second, strict=True):
        # Floating-point images run from 0 to 1 there.
        pair = (one + np.float32(1e-3)) / np.float32(255), other / np.float32(255)
        flows.append(engine.calc(*(image.astype(np.float32) for image in pair), None))
    return np.stack(flows).transpose(0, 3, 1, 2)


def main(args: argparse.Namespace) -> int:
    device = str(choose_device(args.device))
    opencv, ours = create_flow("tvl1"), create_flow("tvl1-torch", device)
    lines = [
        "| video | pairs | mean motion (px) | difference (px) | of images (grey levels) "
        "| OpenCV, brightened (px) |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for path in tqdm(args.videos, "videos", dynamic_ncols=True, disable=None):
        pairs = read_pairs(path, args.pairs, args.distance)
        expected = opencv.between(*pairs)
        motion = np.hypot(*np.moveaxis(expected, 1, 0)).mean()
        pixels, levels = differences(ours.between(*pairs), expected)
        itself = differences(brightened(*pairs), expected)[0]
        lines.append(
            f"| {path.name} | {len(expected)} | {motion:.2f} | {pixels:.4f} | {levels:.3f} "
            f"| {itself:.4f} |"
        )
    print("\n".join(lines))
    return 0
