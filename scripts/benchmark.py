"""Measures parts of this project on the machine it runs on.

    python scripts/benchmark.py loader      # clips/s of each source, beside the bare JPEG decoder
    python scripts/benchmark.py test        # a ten-crop test, beside its bare forward passes
    python scripts/benchmark.py flow        # engines' errors on known motion, and their speed
    python scripts/benchmark.py agreement VIDEO ...   # TV-L1 in PyTorch beside OpenCV's

`python scripts/benchmark.py NAME --help` shows a benchmark's flags.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cli import run
from scripts.benchmarks import agreement, flow, loader, test

# name -> module with add_flags(parser) and main(args) -> exit code; its docstring is the help
BENCHMARKS = {"loader": loader, "test": test, "flow": flow, "agreement": agreement}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        benchmark = names.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_flags(benchmark)
    args = parser.parse_args(argv)
    return BENCHMARKS[args.name].main(args)


if __name__ == "__main__":
    run(main)
