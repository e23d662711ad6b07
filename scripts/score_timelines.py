"""Compares timelines with the truth: frame accuracy, segment F1 at IoU 0.5, mAP.

    python scripts/score_timelines.py TRUTH_DIR FOUND_DIR

TRUTH_DIR holds JSON files as data/join_videos.py writes them, FOUND_DIR files of the same names
from `predict.py --timeline --output FOUND_DIR`.
"""

import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from tabulate import tabulate

from datasets import DataError
from engine import cli
from engine.analysis.timelines import read_spans, score_timelines
from engine.files import write_json


def main(argv: list[str] | None = None) -> int:
    parser = cli.new_parser(__doc__)
    parser.add_argument("truth", type=cli.path, metavar="TRUTH_DIR", help="folder of the truths")
    parser.add_argument("found", type=cli.path, metavar="FOUND_DIR", help="folder of timelines")
    parser.add_argument("--json", type=cli.path, metavar="FILE", help="write the numbers there")
    args = parser.parse_args(argv)
    truths = sorted(args.truth.glob("*.json"))
    if not truths:
        raise DataError(f"{args.truth} holds no .json file")
    pairs = [(read_spans(path), read_spans(args.found / path.name)) for path in truths]
    scores = {"videos": len(pairs)} | asdict(score_timelines(pairs))
    rows = [
        (k.replace("_", " "), f"{v:.3f}" if isinstance(v, float) else v) for k, v in scores.items()
    ]
    print(tabulate(rows, disable_numparse=True))
    if args.json is not None:
        write_json(args.json, scores)
    return 0


if __name__ == "__main__":
    run(main)
