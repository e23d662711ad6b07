"""Shares a trained network: weights, config, class names, and a card filled from its records.

    python scripts/share.py --run checkpoint/mine_rgb_I3D64f_bert2_split1 --to shared/mine
    python scripts/share.py --run checkpoint/mine_rgb_I3D64f_bert2_split1 --to hub:mine

The scores on the card are those that the test scripts wrote to results/. What was shared is read
back wherever a checkpoint is: --checkpoint shared/mine, --weights shared/mine. docs/EXPORT.md
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import UsageError, cli
from engine.applying.networks import load_network
from engine.exporting.card import recorded_scores
from engine.exporting.hub import share_folder, share_on_hub
from engine.files import resolve
from engine.weights.shared import CARD_FILE

HUB = "hub:"


def main(argv: list[str] | None = None) -> int:
    parser = cli.new_parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--run", type=cli.path, metavar="DIR", help="a training's folder: its best model"
    )
    which.add_argument(
        "--checkpoint", type=cli.path, metavar="FILE", help="another file of weights"
    )
    add = parser.add_argument
    add(
        "--to",
        required=True,
        metavar="FOLDER|hub:NAME",
        help="a folder to write, or a repository of the Hugging Face hub to upload to",
    )
    add("--private", action="store_true", help="of a new repository of the hub: only for you")
    add("--results", type=cli.path, metavar="DIR", help="where tests wrote their scores (results)")
    args = parser.parse_args(argv)
    network = load_network(args.run or args.checkpoint)
    scores = recorded_scores(network, resolve(args.results, "results"))
    if args.to.startswith(HUB):
        print(share_on_hub(network, scores, args.to.removeprefix(HUB), args.private))
    elif args.private:
        raise UsageError("--private is for --to hub:NAME")
    else:
        folder = resolve(cli.path(args.to), "")
        share_folder(network, scores, folder)
        print(f"{folder / CARD_FILE}: fill in what it calls not recorded")
        print(f"read back by: --checkpoint {folder}")
    print(f"scores on the card: {', '.join(p.name for p in scores) or 'none, no test is recorded'}")
    return 0


if __name__ == "__main__":
    run(main)
