"""The built-in dataset `motions`: textured scenes whose 8 classes differ only in motion.

    python scripts/data/make_motions.py

A textured patch moves over a textured background, between distractors that hold still, while
the camera shakes. Left-to-right and right-to-left, grow and shrink, turn_cw and turn_ccw are
each other's time reversal. up_then_down and down_then_up hold the same events in the other
order: the pause between them, and the stills before and after, are longer than the backbone's
view of time, so only a head that models time can tell the two apart.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

import cv2
import numpy as np
from tqdm.contrib.concurrent import process_map

from datasets.files import check_writable
from datasets.preparation import Preparation, start_preparation
from datasets.prepare.collect import Video
from datasets.prepare.extract import extract
from datasets.prepare.jobs import check_origin, write_lists
from datasets.prepare.work import remove_unfinished
from engine.cli import data_places, data_script_parser
from engine.cli.flag_types import positive

MOTION_CLASSES = (  # each followed by its time reversal
    *("left_to_right", "right_to_left", "grow", "shrink"),
    *("turn_cw", "turn_ccw", "up_then_down", "down_then_up"),
)
SCENE_W, SCENE_H = 170, 128
# Displacements between the 16 frames that a clip shows: still, move, pause, move, still. In a
# video that goes there and back, both places are shown for six frames: only the order of the
# moves tells which came first, neither their sum nor where the patch is most of the time.
SCHEDULE = (2, 3, 5, 3, 2)
MIN_FRAMES, MAX_FRAMES = 16, 17


@dataclass(frozen=True)
class Pose:
    """Where the patch is: centre in pixels, relative size, angle in degrees (counter-clockwise)."""

    x: float
    y: float
    scale: float = 1.0
    angle: float = 0.0


def trajectory(label: int, count: int, rng: np.random.Generator) -> list[Pose]:
    """The poses of a class over `count` frames; where, how far and how fast is random."""
    x, y = rng.uniform(65, SCENE_W - 65), rng.uniform(56, SCENE_H - 56)
    scale, angle = rng.uniform(0.85, 1.15), rng.uniform(0, 360)
    kind, sign = label // 2, 1 if label % 2 == 0 else -1
    moved = sign * (np.linspace(0, 1, count) - 0.5)  # over the frames: -0.5 to 0.5 or back
    if kind == 0:
        reach = rng.uniform(36, 60)
        return [Pose(x + reach * m, y, scale, angle) for m in moved]
    if kind == 1:
        factor = rng.uniform(1.7, 2.2)
        return [Pose(x, y, scale * factor**m, angle) for m in moved]
    if kind == 2:
        reach = rng.uniform(100, 180)
        return [Pose(x, y, scale, angle - reach * m) for m in moved]
    # There and back: the same two poses in every video of both classes, in the other order.
    reach = sign * rng.uniform(22, 32)
    away = 1 - 2 * np.abs(_there_and_back(count) - 0.5)
    return [Pose(x, y + reach * (0.5 - a), scale, angle) for a in away]


def _there_and_back(count: int) -> np.ndarray:
    """0..1 over the frames: two equal moves with stills around them."""
    before, move, pause, _, after = SCHEDULE
    spare = count - 1 - sum(SCHEDULE)
    steps = [0] * before + [1] * move + [0] * pause + [1] * move + [0] * (after + spare)
    return np.concatenate([[0], np.cumsum(steps)]) / (2 * move)


def texture(
    height: int, width: int, coarse: int, contrast: float, rng: np.random.Generator
) -> np.ndarray:
    """Coloured noise, uint8 (height, width, 3), with blobs of about `coarse` pixels."""
    small = rng.normal(0, contrast, (height // coarse + 2, width // coarse + 2, 3))
    smooth = cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    colour = rng.uniform(70, 185, 3)
    return np.clip(colour + smooth, 0, 255).astype(np.uint8)


def paste(scene: np.ndarray, patch: np.ndarray, pose: Pose) -> np.ndarray:
    """The scene with the patch, an ellipse of its texture, drawn at a pose."""
    size = patch.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), pose.angle, pose.scale)
    matrix[:, 2] += (pose.x - size / 2, pose.y - size / 2)
    mask = np.zeros((size, size), np.float32)
    axes = (int(size * 0.46), int(size * 0.34))
    cv2.ellipse(mask, (size // 2, size // 2), axes, 0, 0, 360, 1.0, -1)
    extent = (scene.shape[1], scene.shape[0])
    alpha = cv2.warpAffine(mask, matrix, extent)[..., None]
    moved = cv2.warpAffine(patch, matrix, extent)
    return (scene * (1 - alpha) + moved * alpha).astype(np.uint8)


def render(label: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """A video of a class: uint8 (128, 170, 3) frames, a function of the seed."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(MIN_FRAMES, MAX_FRAMES, endpoint=True))
    margin = 6
    scene = texture(SCENE_H + 2 * margin, SCENE_W + 2 * margin, 16, 14, rng)
    for _ in range(3):
        place = Pose(rng.uniform(0, SCENE_W), rng.uniform(0, SCENE_H), rng.uniform(0.3, 0.6))
        scene = paste(scene, texture(64, 64, 8, 25, rng), place)
    patch = texture(72, 72, 10, 60, rng)
    shake = np.clip(np.cumsum(rng.normal(0, 0.4, (count, 2)), axis=0), -margin, margin)
    frames = []
    for pose, (dx, dy) in zip(trajectory(label, count, rng), shake, strict=True):
        full = paste(scene, patch, Pose(pose.x + margin, pose.y + margin, pose.scale, pose.angle))
        matrix = np.float32([[1, 0, dx - margin], [0, 1, dy - margin]])
        frame = cv2.warpAffine(full, matrix, (SCENE_W, SCENE_H)).astype(np.float32)
        frames.append(np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8))
    return frames


def make_video(video: Video, seed: int, frames: Path, preparation: Preparation) -> None:
    """Renders and extracts one video."""
    label, name = MOTION_CLASSES.index(video.class_name), Path(video.path).name
    place = ("train", "val").index(video.subset), label, int(name.rpartition("_")[2])
    extract(render(label, (seed, *place)), frames, video.folder, preparation)


def main(argv: list[str] | None = None) -> int:
    parser = data_script_parser(__doc__, "motions")
    add = parser.add_argument
    add("--train", type=positive, default=40, help="training videos a class (%(default)s)")
    add("--val", type=positive, default=12, help="test videos a class (%(default)s)")
    add("--seed", type=int, default=0, help="seed of the videos (%(default)s)")
    args = parser.parse_args(argv)
    # which videos
    frames, settings = data_places(args)
    preparation = Preparation(width=SCENE_W, height=SCENE_H, flow="dis", bound=20.0)
    check_origin(frames)
    for folder in (frames, settings / args.dataset):
        check_writable(folder)
    start_preparation(frames, preparation)
    videos = [
        Video(f"{class_name}/{subset}_{number:03d}", class_name, subset)
        for subset, size in (("train", args.train), ("val", args.val))
        for number in range(size)
        for class_name in MOTION_CLASSES
    ]
    # frames and lists
    make = partial(make_video, seed=args.seed, frames=frames, preparation=preparation)
    bar = {"desc": "motions", "unit": "video", "disable": None}
    try:
        process_map(make, videos, max_workers=args.workers, chunksize=1, **bar)
    finally:
        remove_unfinished(frames)
    write_lists(settings / args.dataset, 1, videos, MOTION_CLASSES, frames)
    print(f"{len(videos)} videos: frames in {frames}, lists in {settings / args.dataset}")
    return 0


if __name__ == "__main__":
    run(main)
