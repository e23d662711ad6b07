"""Measures the parts that can be slow, beside what bounds them.

python scripts/benchmark.py loader      # clips/s of each source, beside the bare JPEG decoder
python scripts/benchmark.py test        # a ten-crop test, beside its bare forward passes
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cli import run  # noqa: E402
from scripts.benchmarks import loader, test  # noqa: E402

# name -> module with `configure(parser)` and `main(args) -> exit code`
BENCHMARKS = {
    "loader": loader,
    "test": test,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(command)
    args = parser.parse_args(argv)
    return BENCHMARKS[args.benchmark].main(args)


if __name__ == "__main__":
    run(main)
