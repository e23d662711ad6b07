"""The parser of scripts/predict.py, and the flags that name trained networks."""

import argparse
from collections.abc import Callable

from engine import UsageError
from engine.cli.base import YES, YES_OR_NO, fill, new_parser
from engine.cli.flag_types import above_zero, fraction, not_below_zero, path, positive
from engine.cli.parsers import add_speed_flags
from engine.config import PredictConfig, SpeedConfig, TimelineRules


def add_network_flags(add: Callable[..., argparse.Action]) -> None:
    """--run, --checkpoint and --device: which trained network is applied, and where."""
    add("--run", type=path, metavar="DIR", help="folder of a training: its best model is applied")
    add(
        "--checkpoint",
        type=path,
        metavar="FILE",
        help="a checkpoint, or published weights with a classifier, instead of --run",
    )
    add("--device", help="where to compute: cuda, cpu, mps, ... (cuda if there is one)")


def chosen_network(args: argparse.Namespace):
    """The file or folder that --run or --checkpoint names; raises UsageError unless one does."""
    if (args.run is None) == (args.checkpoint is None):
        raise UsageError("name the network by one of --run DIR and --checkpoint FILE")
    return args.run or args.checkpoint


def prediction_parser(description: str) -> argparse.ArgumentParser:
    """The parser of scripts/predict.py."""
    parser = new_parser(description, PredictConfig, SpeedConfig, TimelineRules)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a video file, a folder of them, a pattern, a camera's number, - for a pipe, or a URL",
    )
    add = parser.add_argument_group("network").add_argument
    add_network_flags(add)
    add(
        "--checkpoint_flow",
        "--checkpoint-flow",
        type=path,
        metavar="FILE",
        help="a flow network (or a run's folder) whose scores are fused with the RGB network's",
    )
    add("--batch-size", type=positive, help="views at once (10 on a GPU, 4 on a CPU)")
    add_speed_flags(parser)
    add = parser.add_argument_group("what it sees").add_argument
    add("--clips", choices=("multi", "single"), help="all clips, or the central one (%(default)s)")
    add(
        "--ten-crop",
        **YES_OR_NO,
        help="ten crops of each clip, as the tests, or the centre alone (the centre for timelines)",
    )
    add("--fps", type=above_zero, help="frames a second to resample to (as in the training)")
    add("--deadline", type=above_zero, help="seconds that a source may be silent (%(default)g)")
    add = parser.add_argument_group("answer").add_argument
    add("--top", type=positive, help="classes to print of each video (%(default)s)")
    add("--json", type=path, metavar="FILE", help="write all probabilities there")
    add("--csv", type=path, metavar="FILE", help="write the printed classes there")
    add("--live", **YES, help="print a line a second; a camera is always live")
    _add_timeline_flags(parser)
    return parser


def _add_timeline_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("timeline").add_argument
    add("--timeline", **YES, help="say what happens when: JSON, CSV, SRT, a plot")
    add("--output", type=path, metavar="DIR", help="folder of its files (results/timelines)")
    add("--overlay", type=path, metavar="OUT.mp4", help="write the video with its labels there")
    add("--step", type=above_zero, help="seconds between windows (a quarter of a clip)")
    add("--smoothing", type=not_below_zero, help="seconds of the moving average (%(default)s)")
    add("--enter", type=fraction, help="probability from which an action begins (%(default)s)")
    add("--leave", type=fraction, help="probability below which it ends (%(default)s)")
    add("--gap", type=not_below_zero, help="seconds over which actions are merged (%(default)s)")
    add("--shortest", type=not_below_zero, help="seconds of the shortest action (half a window)")
    add("--background", metavar="CLASS", help="the class in which nothing happens")


def prediction_config(parser: argparse.ArgumentParser, argv: list[str] | None) -> PredictConfig:
    """Parses the flags; raises UsageError for those that exclude each other."""
    args = parser.parse_args(argv)
    if args.leave > args.enter:
        raise UsageError(
            f"--leave {args.leave} is above --enter {args.enter}: actions would flicker"
        )
    return fill(
        PredictConfig,
        args,
        sources=tuple(args.sources),
        network=chosen_network(args),
        network_flow=args.checkpoint_flow,
    )
