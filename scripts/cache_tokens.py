"""Runs a network's frozen part once over a dataset and keeps its tokens for training heads.

    python scripts/weights.py get i3d-rgb-kinetics400
    python scripts/cache_tokens.py --arch rgb_I3D64f --dataset hmdb51 --views 8
    python two_stream_bert2.py --arch rgb_I3D64f_bert2 --dataset hmdb51 --cache --lr 1e-4

What is there already is not made again: the same command goes on after a kill, and `--shard 1/2`
and `--shard 2/2` (or torchrun) share the videos out. docs/CACHE.md says more.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.prepare.collect import Shard
from engine.cli import data_parent, run
from engine.flag_types import path, positive, seed_number, shard
from engine.tokens.make import fill_cache


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        parents=[data_parent()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("network").add_argument
    add("--arch", "-a", required=True, help="its head does not matter, unless that is NLB")
    add(
        "--weights",
        default="auto",
        metavar="auto|none|NAME|FILE",
        help="as in training (%(default)s)",
    )
    add("--checkpoint", type=path, metavar="FILE", help="a trained network of that architecture")
    add("--batch-size", type=positive, help="clips at once (10 on a GPU, 2 on a CPU)")
    add = parser.add_argument_group("views").add_argument
    add("--views", type=positive, default=8, help="random ones a training video (%(default)s)")
    add("--clips", choices=("multi", "single"), default="multi", help="of the test (%(default)s)")
    yes_or_no = argparse.BooleanOptionalAction
    add("--ten-crop", action=yes_or_no, default=True, help="of the test, or the centre alone")
    add("--flip", action=yes_or_no, help="as in training: mirror half of the clips")
    add("--seed", type=seed_number, default=0, help="of the random views (%(default)s)")
    add = parser.add_argument_group("share and files").add_argument
    add("--part", choices=("train", "val", "both"), default="both", help="(%(default)s)")
    add("--shard", type=shard, default=Shard(), metavar="i/n", help="every n-th video, from i on")
    add("--cache", type=path, metavar="DIR", help="folder (datasets/<dataset>_tokens/...)")
    args = parser.parse_args(argv)
    if args.checkpoint is not None and args.weights != "auto":
        parser.error("give --weights or --checkpoint")
    return fill_cache(args, args.shard)


if __name__ == "__main__":
    run(main)
