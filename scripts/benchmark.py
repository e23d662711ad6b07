"""Measures parts of this project on the machine it runs on.

    python scripts/benchmark.py loader      # clips/s of each source, and of a bare JPEG decode loop
    python scripts/benchmark.py test        # a ten-crop test, and its forward passes alone
    python scripts/benchmark.py flow        # flow engines: errors on known motion, speed
    python scripts/benchmark.py flow --video VIDEO ...   # TV-L1 in PyTorch and OpenCV's, compared

`python scripts/benchmark.py NAME --help` shows a benchmark's flags.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cli import run
from scripts.benchmarks import flow, loader, test

# name -> module with add_flags(parser) and main(args) -> exit code; its docstring is the help
BENCHMARKS = {"loader": loader, "test": test, "flow": flow}


def main(argv: list[str] | None = None) -> int:
    plain = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **plain)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        first_line, text = module.__doc__.splitlines()[0], module.__doc__
        module.add_flags(names.add_parser(name, help=first_line, description=text, **plain))
    args = parser.parse_args(argv)
    return BENCHMARKS[args.name].main(args)


if __name__ == "__main__":
    run(main)
