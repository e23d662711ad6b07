"""The parsers of the test scripts."""

import argparse

from engine.cli.base import YES, YES_OR_NO, data_parent, new_parser
from engine.cli.flag_types import path, positive, time_order
from engine.cli.parsers import add_cache_flag, add_speed_flags
from engine.config import DataConfig, SpeedConfig, TestConfig


def testing_parser(description: str) -> argparse.ArgumentParser:
    """The test scripts' parser, without the architectures and checkpoints."""
    parser = new_parser(description, DataConfig, TestConfig, SpeedConfig, parents=[data_parent()])
    add = parser.add_argument_group("testing").add_argument
    add(
        "--ten-crop",
        **YES_OR_NO,
        help="centre and corner crops, and the same flipped; or the centre alone",
    )
    add(
        "--time-order",
        type=time_order,
        metavar="ORDER",
        help="order in which the head sees tokens: normal, reversed, shuffled, or their places, "
        "as 1,0,2 (%(default)s)",
    )
    help = "views that pass through the network at once (10 on a GPU, 4 on a CPU)"
    add("--batch-size", type=positive, help=help)
    add_speed_flags(parser)
    add(
        "--runs",
        type=path,
        metavar="DIR",
        help="folder in which training kept its runs (checkpoint)",
    )
    add("--results", type=path, metavar="DIR", help="folder that results are written in (results)")
    add("--scores", type=path, metavar="FILE.npz", help="also where to write the scores")
    add("--html", **YES, help="also write a report to read in a browser (docs/REPORT.md)")
    add_cache_flag(add)
    return parser


def single_stream_parser(description: str) -> argparse.ArgumentParser:
    """The parser of the tests of one network."""
    parser = testing_parser(description)
    add = parser.add_argument_group("network").add_argument
    help = "the network, one of scripts/list_archs.py (%(default)s)"
    add("--arch", "-a", default="rgb_resneXt3D64f101_bert10_FRMB", help=help)
    help = "trained network to test, or a shared folder (the run's best model)"
    add("--checkpoint", type=path, metavar="FILE", help=help)
    return parser
