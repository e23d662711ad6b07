"""Measures parts of this project on the machine it runs on.

    python scripts/benchmark.py model       # forward passes: time, memory, use of the machine
    python scripts/benchmark.py train       # the same of training steps
    python scripts/benchmark.py test        # whole ten-crop tests
    python scripts/benchmark.py loader      # clips/s of each source, and of a bare JPEG decode loop
    python scripts/benchmark.py flow        # flow engines: errors on known motion, speed
    python scripts/benchmark.py flow --video VIDEO ...   # TV-L1 in PyTorch and OpenCV's, compared
    python scripts/benchmark.py all --json FILE          # all of them with their defaults

`python scripts/benchmark.py NAME --help` shows a benchmark's flags. With --json a benchmark also
writes its rows, with every turn's seconds, the machine, versions and settings.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from datasets.files import check_writable
from engine.cli import new_parser
from engine.cli.flag_types import path
from engine.files import write_json
from scripts.benchmarks import flow, loader, model, test
from scripts.benchmarks.machine import machine_facts

# name -> module with add_flags(parser) and main(args) -> rows; its docstring is the help
BENCHMARKS = {"model": model, "train": model, "test": test, "loader": loader, "flow": flow}


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json.resolve().parent)
    runs = [args]
    if args.name == "all":
        against = ["--against", args.against] if args.against else []
        compared = ("model", "train", "test")
        runs = [parser.parse_args([n, *(against if n in compared else [])]) for n in BENCHMARKS]
    # measure, and write what there is after each benchmark: some take hours
    facts, found = machine_facts(), {}
    for flags in runs:
        rows = BENCHMARKS[flags.name].main(flags)
        values = {name: value for name, value in vars(flags).items() if name != "name"}
        shown = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
        found[flags.name] = {"flags": shown, "rows": rows}
        if args.json:
            write_json(args.json, {"machine": facts, "benchmarks": found})
    return int(any("error" in row for each in found.values() for row in each["rows"]))


def build_parser() -> argparse.ArgumentParser:
    plain = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = new_parser(__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    everything = names.add_parser("all", help="All of them, with their defaults.")
    everything.add_argument(
        "--against", metavar="COMMIT", help="also time this commit's code in model, train, test"
    )
    for name, module in BENCHMARKS.items():
        first_line, text = module.__doc__.splitlines()[0], module.__doc__
        module.add_flags(names.add_parser(name, help=first_line, description=text, **plain))
    for benchmark in names.choices.values():
        benchmark.add_argument("--json", type=path, metavar="FILE", help="write all numbers there")
    return parser


if __name__ == "__main__":
    run(main)
