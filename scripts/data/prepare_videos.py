"""Your own videos -> frames, optical flow, lists and class names.

    python scripts/data/prepare_videos.py VIDEOS --dataset NAME --train 'set1_*' --val 'set2_*'

VIDEOS holds a folder for each class. Or `--csv FILE` lists the videos: columns `video` (path
below VIDEOS), `class` (default: the folder that the video lies in) and `part` (train, val or
empty; with it the csv is the split). What is finished is skipped when run again, so a second
split of the same videos costs nothing: give it another --split number.

    python scripts/data/prepare_videos.py --flow-only --dataset NAME --flow tvl1-torch

adds flow to the frame folders that a dataset has, and a flow list for each of its RGB lists.

`--shard 2/4` does every fourth video, starting with the second, and writes no lists: run all
shards, on as many machines, then the same command without --shard, which writes them.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets import DATASETS, DatasetSpec
from datasets.flow.engines import FLOW_ENGINES, create_flow, flow_spec
from datasets.prepare.collect import Shard, Video, check_videos, find_videos, read_csv
from datasets.prepare.extract import (
    Preparation,
    clean_up,
    describe,
    start_adding_flow,
    start_preparation,
)
from datasets.prepare.jobs import (
    add_flow_to_all,
    find_frame_folders,
    merge_class_names,
    my_share,
    prepare_all,
    write_flow_lists,
    write_lists,
)
from datasets.splitting import split_at_random, split_by_pattern
from engine import UsageError
from engine.cli import run
from engine.distributed import choose_device
from engine.files import resolve
from engine.flag_types import positive, regex, shard

Report = Callable[[str], None]


def choose_split(args: argparse.Namespace, videos: list[Video]) -> dict[str, str | None]:
    """Video path -> part, as the arguments say."""
    paths = [video.path for video in videos]
    if any(video.part for video in videos):
        return {video.path: video.part for video in videos}
    if args.train or args.val:
        if not (args.train and args.val):
            raise UsageError("--train and --val go together")
        return split_by_pattern(paths, args.train, args.val)
    return split_at_random(paths, args.val_share, args.group, args.seed)


def warn_of_missing_classes(
    videos: list[Video], parts: dict[str, str | None], report: Report
) -> None:
    """A class that only trains or only tests is most often a mistake in the split."""
    for part in ("train", "val"):
        there = {video.class_name for video in videos if parts[video.path] == part}
        missing = sorted({video.class_name for video in videos} - there)
        if missing:
            report(f"warning: no video for {part} of the classes {', '.join(missing)}")


def prepare_engine(args: argparse.Namespace) -> str:
    """Raises before any work for an engine that lacks something; returns its device."""
    uses_device = args.flow != "none" and flow_spec(args.flow).uses_device
    if args.device and not uses_device:
        raise UsageError(f"--device is for the engines in PyTorch; --flow {args.flow} has none")
    if not uses_device:
        return "cpu"
    create_flow(args.flow)  # fetches its weights once, not in every process
    return str(choose_device(args.device))


def prepare(args: argparse.Namespace, frames: Path, settings: Path, report: Report) -> int:
    """VIDEOS -> frames, flow and lists; returns the exit code."""
    root = args.videos.expanduser().resolve()
    videos = read_csv(args.csv) if args.csv else find_videos(root)
    check_videos(root, videos)
    parts = {} if args.no_lists else choose_split(args, videos)
    size = args.width or Preparation.width, args.height or Preparation.height
    preparation = Preparation(*size, args.quality, args.flow, args.bound)
    # Labels follow from all videos: they stay when a broken one is mended.
    class_names = [] if args.no_lists else merge_class_names(settings / "classes.txt", videos)
    if not (args.shard or args.no_lists):
        warn_of_missing_classes(videos, parts, report)
    device = prepare_engine(args)
    start_preparation(frames, preparation)
    mine = my_share(videos, args.shard) if args.shard else videos
    failures = prepare_all(root, mine, frames, preparation, args.workers, device)
    if args.shard:
        report_shard(args.shard, len(mine), len(videos), failures, frames, preparation, report)
        return 1 if failures else 0
    clean_up(frames)
    usable = [video for video in videos if video.path not in failures]
    numbers = Counter(parts.get(video.path) for video in usable)
    done = f"{len(usable)} videos in {frames} ({describe(preparation)})"
    try:
        if args.no_lists:
            report(done)
            return 1 if failures else 0
        write_lists(settings, args.split, usable, parts, class_names, frames, preparation)
        report(
            f"{done}; split {args.split}: "
            f"{numbers['train']} for training, {numbers['val']} for testing, lists in {settings}"
        )
    finally:
        report_failures(failures, report)
    return 1 if failures else 0


def prepare_flow_only(
    args: argparse.Namespace, frames: Path, settings: Path, report: Report
) -> int:
    """Frame folders -> flow and flow lists; returns the exit code."""
    if args.flow == "none" or args.videos or args.csv or args.width or args.height:
        raise UsageError(
            "--flow-only computes flow from the frames that are there, at their size: it needs an "
            "engine (--flow), and goes without VIDEOS, --csv, --width and --height"
        )
    names = DATASETS.get(args.dataset, DatasetSpec()).names
    folders = find_frame_folders(frames, names)
    device = prepare_engine(args)
    preparation = start_adding_flow(frames, folders, names, args.flow, args.bound, args.quality)
    mine = args.shard.of(folders) if args.shard else folders
    failures = add_flow_to_all(frames, mine, preparation, names, args.workers, device)
    if args.shard:
        report_shard(args.shard, len(mine), len(folders), failures, frames, preparation, report)
        return 1 if failures else 0
    clean_up(frames)
    done = f"{len(folders) - len(failures)} videos in {frames} have flow ({describe(preparation)})"
    try:
        written, left_out = write_flow_lists(settings, frames, preparation, names)
        lists = f"lists in {settings}: {', '.join(written)}"
        report(f"{done}; {lists if written else f'no RGB lists in {settings}, so none for flow'}")
        for folder in left_out:
            failures.setdefault(folder, "listed, but it has no frames or not all of its flow")
    finally:
        report_failures(failures, report)
    return 1 if failures else 0


def report_failures(failures: dict[str, str], report: Report) -> None:
    for name, reason in sorted(failures.items()):
        report(f"left out: {name}: {reason}")


def report_shard(
    shard: Shard,
    done: int,
    total: int,
    failures: dict[str, str],
    frames: Path,
    preparation: Preparation,
    report: Report,
) -> None:
    report(
        f"shard {shard.number}/{shard.count}: {done - len(failures)} of {total} videos in {frames} "
        f"({describe(preparation)}); when all shards are finished, the same command without "
        "--shard writes the lists"
    )
    report_failures(failures, report)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "videos", type=Path, nargs="?", metavar="VIDEOS", help="folder of the videos"
    )
    parser.add_argument("--dataset", "-d", required=True, help="name to use it under")
    parser.add_argument("--csv", type=Path, help="lists the videos, instead of class folders")
    parser.add_argument("--frames", type=Path, help="default: datasets/<dataset>_frames")
    parser.add_argument("--settings", type=Path, help="default: datasets/settings")
    parser.add_argument("-j", "--workers", type=positive, default=2, help="(%(default)s)")
    parser.add_argument("--flow-only", action="store_true", help="add flow to existing frames")
    parser.add_argument("--shard", type=shard, metavar="i/n", help="do the i-th of n shares")
    parser.add_argument("--device", help="of tvl1-torch and raft; default: cuda if there is one")
    images = parser.add_argument_group("images (recorded in preparation.json)").add_argument
    images("--flow", choices=[*FLOW_ENGINES, "none"], default="dis", help="(%(default)s)")
    images("--bound", type=_bound, default=20.0, help="pixels that become 255 (%(default)s)")
    images("--quality", type=_quality, default=95, help="of the JPEGs, 1-100 (%(default)s)")
    images("--width", type=positive, help="(340)")
    images("--height", type=positive, help="(256)")
    split = parser.add_argument_group("split: by patterns, by the csv, or at random").add_argument
    split("-s", "--split", type=positive, default=1, help="number to store it under (%(default)s)")
    split("--train", metavar="PATTERN", help="shell pattern on the file name")
    split("--val", metavar="PATTERN", help="shell pattern on the file name")
    split("--val-share", type=_part_of_all, default=0.3, help="of the videos (%(default)s)")
    split("--group", type=regex, metavar="REGEX", help="videos that match alike stay together")
    split("--seed", type=int, default=0, help="of the random split (%(default)s)")
    split("--no-lists", action="store_true", help="only extract; make_lists.py writes the lists")
    return parser.parse_args(argv)


def _number(text: str, low: float, high: float) -> float:
    value = float(text)
    if not low < value <= high:
        raise argparse.ArgumentTypeError(f"must be above {low} and at most {high}, not {text}")
    return value


def _bound(text: str) -> float:
    return _number(text, 0, 1000)


def _quality(text: str) -> int:
    return int(_number(text, 0, 100))


def _part_of_all(text: str) -> float:
    return _number(text, 0, 0.95)


def main(argv: list[str] | None = None, report: Report = print) -> int:
    args = parse_args(argv)
    frames = resolve(args.frames, f"datasets/{args.dataset}_frames")
    settings = resolve(args.settings, "datasets/settings") / args.dataset
    if args.flow_only:
        return prepare_flow_only(args, frames, settings, report)
    if args.videos is None:
        raise UsageError("give VIDEOS, the folder of the videos, or --flow-only")
    return prepare(args, frames, settings, report)


if __name__ == "__main__":
    run(main)
