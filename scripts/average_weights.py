"""Averages the weights of two trainings of one network (arXiv 2109.01903).

    python scripts/average_weights.py BEFORE.pth AFTER.pth --share 0.5 --output average.pth

The result has (1 - share) of the first and share of the second in every weight and batch statistic:
between a network and what fine-tuning made of it lies often a better one than both. Choose the
share on held-out training videos, never on the test list.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from datasets.files import check_writable
from engine import cli
from engine.applying.networks import average_networks, load_network
from engine.files import read_file, save_atomically


def main(argv: list[str] | None = None) -> int:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("first", type=cli.path, metavar="BEFORE", help="a run's folder, or a checkpoint")
    add("second", type=cli.path, metavar="AFTER", help="another of the same network and classes")
    add("--share", type=cli.fraction, default=0.5, help="of the second, from 0 to 1 (%(default)s)")
    add("--output", type=cli.path, required=True, metavar="FILE", help="checkpoint to write")
    args = parser.parse_args(argv)
    check_writable(args.output.resolve().parent)
    first, second = load_network(args.first), load_network(args.second)
    state_dict = average_networks(first, second, args.share)
    kept = {k: v for k, v in read_file(second.path).items() if k not in ("optimizer", "learner")}
    averaged = {"files": [str(first.path), str(second.path)], "share": args.share}
    save_atomically(kept | {"state_dict": state_dict, "averaged": averaged}, args.output)
    print(f"{args.output}: {1 - args.share:g} of {first.path} and {args.share:g} of {second.path}")
    return 0


if __name__ == "__main__":
    run(main)
