"""What score files say together: accuracies with intervals, comparisons, fusion.

    python scripts/summarize.py results/*.npz
    python scripts/summarize.py RGB.npz FLOW.npz --fusion-weights 1 1.5
    python scripts/summarize.py RGB.npz FLOW.npz --search HELD_OUT_RGB.npz HELD_OUT_FLOW.npz
    python scripts/summarize.py results/*.npz --json summary.json --plot summary.png

Files of one network tested in one way on several splits are one run, by the JSON beside each file,
or without one by its name. Each run gets top-1, top-3, mean class accuracy and, where the file
holds clips, clip-level top-1, with 95 % bootstrap intervals over videos; over splits mean, standard
deviation and the mean's interval. Any two runs of the same videos are compared by McNemar's exact
test. With weights, the runs are streams, in the order of their first files, and are fused: each
score vector divided by its L2 norm, times its stream's weight, added.

--search finds the weights of each split on held-out videos: videos on which neither the networks
were trained nor the split is tested. Make it a `val` list in another settings folder, test the
same checkpoints on it (--settings DIR --results DIR), and give one file for each score file, in
the same order.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import cli
from engine.analysis.fusion import fuse_runs, search_and_fuse
from engine.analysis.summary import summarize_runs
from engine.analysis.tables import print_tables
from engine.files import write_json
from engine.testing.score_files import read_scores
from engine.testing.score_runs import group_runs


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE.npz", help="score files of tests"
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--fusion-weights",
        type=cli.not_below_zero,
        nargs="+",
        metavar="W",
        help="weight of each run in fusion",
    )
    weights.add_argument(
        "--search",
        type=Path,
        nargs="+",
        metavar="FILE.npz",
        help="score files of held-out videos, to find weights on",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw accuracies and gains")
    args = parser.parse_args(argv)
    if args.plot and args.plot.suffix != ".png":
        parser.error(f"--plot {args.plot}: the name should end in .png")
    for output in filter(None, (args.json, args.plot)):
        beside = {path.with_suffix(output.suffix).resolve() for path in args.files}
        if output.resolve() in beside:
            parser.error(f"{output} belongs to a score file; choose another name")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    files = [read_scores(path) for path in args.files]
    runs, fusion = group_runs(files), None
    if args.search:
        fusion = search_and_fuse(runs, files, [read_scores(path) for path in args.search])
    elif args.fusion_weights:
        fusion = fuse_runs(runs, args.fusion_weights)
    summary = summarize_runs(runs, fusion)
    print_tables(summary)
    if args.json:
        write_json(args.json, summary)
    if args.plot:
        from engine.plots import plot_summary  # matplotlib is slow to import

        plot_summary(summary, args.plot)
    return 0


if __name__ == "__main__":
    run(main)
