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
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import resumable, run

from datasets.files import DataError, check_writable, printable
from datasets.flow.engines import FLOW_ENGINES, create_flow, flow_spec
from datasets.preparation import MOST_SIDE, Preparation, start_adding_flow, start_preparation
from datasets.prepare import collect, jobs
from datasets.sources.folders import USUAL_NAMES, find_frame_folders
from datasets.specs import find_spec
from engine import UsageError
from engine.cli import data_places, data_script_parser, fill, split_flags
from engine.cli.flag_types import jpeg_quality, number, path, shard
from engine.distributed import choose_device

Report = Callable[[str], None]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = data_script_parser(__doc__)
    add = parser.add_argument
    add("videos", type=path, nargs="?", metavar="VIDEOS", help="folder of the videos")
    add("--csv", type=path, help="file that lists the videos, instead of class folders")
    help = "use a video that breaks off up to there, instead of leaving it out"
    add("--keep-damaged", action="store_true", help=help)
    add("--flow-only", action="store_true", help="compute flow from frames that are there already")
    add("--shard", type=shard, metavar="i/n", help="prepare the i-th of n shares of the videos")
    add("--device", help="where tvl1-torch and raft compute (cuda if there is one)")
    images = parser.add_argument_group("images (recorded in preparation.json)").add_argument
    images(
        "--flow",
        choices=[*FLOW_ENGINES, "none"],
        default="dis",
        help="engine of optical flow (%(default)s)",
    )
    bound = number(float, 0, 1000, above=True)
    images(
        "--bound", type=bound, default=20.0, help="largest displacement, in pixels (%(default)s)"
    )
    images(
        "--quality", type=jpeg_quality, default=95, help="quality of the JPEGs, 1-100 (%(default)s)"
    )
    side = number(int, 1, MOST_SIDE)
    images("--width", type=side, help="pixels that frames are stretched to (340)")
    images("--height", type=side, help="pixels that frames are stretched to (256)")
    images(
        "--fps",
        type=number(float, 0, 1000, above=True),
        help="frames a second to resample to (as they are)",
    )
    split = split_flags(parser)
    split("--no-lists", action="store_true", help="only extract; make_lists.py writes the lists")
    return parser.parse_args(argv)


def flow_device(args: argparse.Namespace) -> str:
    """Where flow is computed; raises before any work for an engine that lacks something."""
    uses_device = args.flow != "none" and flow_spec(args.flow).uses_device
    if args.device and not uses_device:
        raise UsageError(f"--device is for the engines in PyTorch; --flow {args.flow} has none")
    if not uses_device:
        return "cpu"
    create_flow(args.flow)  # fetches its weights once, not in every process
    return str(choose_device(args.device))


def prepare(args: argparse.Namespace, frames: Path, settings: Path, report: Report) -> int:
    """VIDEOS -> frames, flow and lists; returns the exit code."""
    # which videos, which split
    root = args.videos.resolve()
    videos = collect.read_csv(args.csv) if args.csv else collect.find_videos(root)
    collect.check_videos(root, videos)
    if not args.no_lists:
        videos = fill(collect.SplitRule, args).apply(videos)
        # Labels follow from all videos: they stay when a broken one is fixed.
        class_names = collect.merge_class_names(settings / "classes.txt", videos)
        for line in [] if args.shard else collect.missing_classes(videos):
            report(f"warning: {line}")
    # frames and flow
    device, names = flow_device(args), USUAL_NAMES
    size = args.width or Preparation.width, args.height or Preparation.height
    preparation = Preparation(*size, args.quality, args.flow, args.bound, args.fps)
    jobs.check_origin(frames)
    if not (args.no_lists or args.shard):
        check_writable(settings)
    start_preparation(frames, preparation)
    places = (frames, preparation, names)
    workers = jobs.Workers(*places, args.workers, device, args.shard, args.keep_damaged)
    outcome = workers.run(partial(workers.extract, root), sorted(videos, key=str))
    for name, damage in sorted(outcome.damaged.items()):
        print(f"damaged: {printable(name, lines=False)}: {damage}", file=sys.stderr)
    if args.shard:
        return report_shard(workers, outcome, report)
    preparation = jobs.record_facts(frames, preparation, outcome.facts)
    # lists
    usable = [video for video in videos if video.path not in outcome.failures]
    done = f"{len(usable)} videos in {frames} ({preparation})"
    try:
        if not args.no_lists:
            jobs.write_lists(settings, args.split, usable, class_names, frames)
            listed = Counter(video.subset for video in usable)
            done += f"; split {args.split}: {listed['train']} for training, "
            done += f"{listed['val']} for testing, lists in {settings}"
        report(done)
    finally:
        code = report_failures(outcome.failures, report)
        for line in preparation.remarks().values():
            print(f"note: {line}", file=sys.stderr)
    return code


def add_flow_only(args: argparse.Namespace, frames: Path, settings: Path, report: Report) -> int:
    """Frame folders -> flow and flow lists; returns the exit code."""
    if args.flow == "none" or args.videos or args.csv or args.width or args.height or args.fps:
        raise UsageError(
            "--flow-only computes flow from the frames that are there, at their size: it needs an "
            "engine (--flow), and goes without VIDEOS, --csv, --width, --height and --fps"
        )
    # flow
    device, names = flow_device(args), find_spec(args.dataset).names
    folders = find_frame_folders(frames, names, ("rgb",))
    if not folders:
        raise DataError(f"no frame folders in {frames}; give --frames, or VIDEOS to extract")
    if any(settings.glob(jobs.RGB_LISTS)) and not args.shard:
        check_writable(settings)
    preparation = start_adding_flow(frames, folders, names, args.flow, args.bound, args.quality)
    workers = jobs.Workers(frames, preparation, names, args.workers, device, args.shard)
    outcome = workers.run(workers.add_flow, folders)
    if args.shard:
        return report_shard(workers, outcome, report)
    # lists
    failures = dict(outcome.failures)
    done = f"{outcome.done} videos in {frames} have flow ({preparation})"
    try:
        written, left_out = jobs.write_flow_lists(settings, frames, preparation, names)
        lists = f"lists in {settings}: {', '.join(written)}"
        report(f"{done}; {lists if written else f'no RGB lists in {settings}, so none for flow'}")
        for folder in left_out:
            failures.setdefault(folder, "listed, but it has no frames or not all of its flow")
    finally:
        code = report_failures(failures, report)
    return code


def report_shard(workers: jobs.Workers, outcome: jobs.Prepared, report: Report) -> int:
    """Says what a shard did; returns the exit code."""
    report(
        f"shard {workers.shard.number}/{workers.shard.count}: {outcome.done} of {outcome.total} "
        f"videos in {workers.frames} ({workers.preparation}); when all shards are finished, the "
        "same command without --shard writes the lists"
    )
    return report_failures(outcome.failures, report)


def report_failures(failures: dict[str, str], report: Report) -> int:
    """Says what was left out and why; returns the exit code."""
    for name, reason in sorted(failures.items()):
        report(f"left out: {printable(name, lines=False)}: {reason}")
    return 1 if failures else 0


def main(argv: list[str] | None = None, report: Report = print) -> int:
    args = parse_args(argv)
    frames, settings = data_places(args)
    if args.videos is None and not args.flow_only:
        raise UsageError("give VIDEOS, the folder of the videos, or --flow-only")
    make = add_flow_only if args.flow_only else prepare
    with resumable():
        return make(args, frames, settings / args.dataset, report)


if __name__ == "__main__":
    run(main)
