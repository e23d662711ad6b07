"""The parser of the scripts that show score files: report, to_fiftyone."""

import argparse

from engine.cli.base import new_parser
from engine.cli.flag_types import path, plain_name
from engine.config import ReportConfig


def report_parser(description: str) -> argparse.ArgumentParser:
    """The parser of the scripts that show score files and their videos."""
    parser = new_parser(description, ReportConfig)
    add = parser.add_argument
    add("files", type=path, nargs="+", metavar="FILE.npz", help="score files of the test scripts")
    add("--dataset", "-d", type=plain_name, help="whose videos are shown (what the JSONs say)")
    add("--settings", type=path, metavar="DIR", help="folder of the lists (what the JSONs say)")
    add("--frames", type=path, metavar="DIR", help="frames, packs or videos (what the JSONs say)")
    return parser
