"""Joins clips of known classes into long videos whose true timeline is known.

    python scripts/data/join_videos.py VIDEOS --output joined --include 'set1_*_[6-9]_*'

VIDEOS is a folder with a subfolder for each class. Each joined video is an MP4 with a JSON file
beside it: its length, and from when to when each class is shown; neighbours of one class are one
action. Clips of --background are joined as well, and the truth has nothing there.
score_timelines.py compares timelines with it.
"""

import sys
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

import av
import cv2
import numpy as np
from tqdm import tqdm

from datasets import DataError
from datasets.sources.videos import VIDEO_SUFFIXES
from engine import cli
from engine.applying.footage import Footage
from engine.applying.sources import VideoSource
from engine.cli.flag_types import image_size
from engine.files import write_json


def main(argv: list[str] | None = None) -> int:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("videos", type=cli.path, metavar="VIDEOS", help="folder with a subfolder for each class")
    add("--output", type=cli.path, required=True, metavar="DIR", help="folder of the joined videos")
    add("--include", action="append", metavar="PATTERN", help="file names to take (all)")
    add("--background", metavar="CLASS", help="the class whose clips are no action")
    add("--clips", type=cli.positive, default=12, help="clips of a joined video (%(default)s)")
    add("--fps", type=cli.above_zero, default=30, help="frames a second to write (%(default)s)")
    add(
        "--size",
        type=image_size,
        default=(340, 256),
        metavar="WxH",
        help="WIDTHxHEIGHT to write, pixels (340x256)",
    )
    add("--seed", type=cli.non_negative, default=0, help="of the clips' order (%(default)s)")
    args = parser.parse_args(argv)
    clips = find_clips(args.videos, args.include or ["*"])
    order = np.random.default_rng(args.seed).permutation(len(clips))
    args.output.mkdir(parents=True, exist_ok=True)
    groups = [order[start : start + args.clips] for start in range(0, len(order), args.clips)]
    for number, group in enumerate(tqdm(groups, unit="video", disable=None)):
        stem = args.output / f"joined_{number:02d}"
        truth = join([clips[place] for place in group], stem, args.size, args.fps)
        if args.background is not None:
            truth["segments"] = [s for s in truth["segments"] if s["label"] != args.background]
        write_json(stem.with_suffix(".json"), truth)
    print(f"{args.output}: {len(groups)} videos of {len(clips)} clips")
    return 0


def find_clips(videos: Path, patterns: list[str]) -> list[tuple[Path, str]]:
    """(file, class) of the videos whose names fit a pattern, in the order of their names."""
    found = [
        (path, path.parent.name)
        for path in sorted(videos.glob("*/*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and any(fnmatch(path.name, p) for p in patterns)
    ]
    if not found:
        raise DataError(f"{videos} has no videos like {', '.join(patterns)} in class folders")
    return found


def join(
    clips: list[tuple[Path, str]], stem: Path, size: tuple[int, int], fps: float
) -> dict[str, object]:
    """Writes the video, whole or not at all, and returns its truth."""
    work = stem.with_name(f".{stem.name}.unfinished.mp4")
    segments, shown = [], 0
    try:
        with av.open(str(work), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=round(fps), options={"crf": "12"})
            (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
            for path, label in clips:
                start = shown
                for _, picture in Footage(VideoSource(str(path), "file"), fps):
                    frame = av.VideoFrame.from_ndarray(cv2.resize(picture, size), "rgb24")
                    container.mux(stream.encode(frame))
                    shown += 1
                if segments and segments[-1]["label"] == label:  # no eye could part them
                    segments[-1]["end"] = shown / fps
                else:
                    segment = {"label": label, "start": start / fps, "end": shown / fps}
                    segments.append(segment)
            container.mux(stream.encode())
        work.replace(stem.with_suffix(".mp4"))
    finally:
        work.unlink(missing_ok=True)
    return {"seconds": shown / fps, "segments": segments}


if __name__ == "__main__":
    run(main)
