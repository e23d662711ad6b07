"""Runs a network's frozen part once over a dataset and keeps its tokens for training heads.

    python scripts/weights.py get i3d-rgb-kinetics400
    python scripts/cache_tokens.py --arch rgb_I3D64f --dataset hmdb51 --views 8
    python two_stream_bert2.py --arch rgb_I3D64f_bert2 --dataset hmdb51 --cache --lr 1e-4

What is there already is not made again: the same command resumes after a kill, and `--shard 1/2`
and `--shard 2/2` (or torchrun) share the videos out. docs/CACHE.md says more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import resumable, run

from engine import cli
from engine.config import CacheConfig
from engine.tokens.make import fill_cache


def main(argv: list[str] | None = None) -> int:
    parser = cli.caching_parser(__doc__)
    args = parser.parse_args(argv)
    if args.checkpoint is not None and args.weights != "auto":
        parser.error("give --weights or --checkpoint")
    with resumable():
        return fill_cache(cli.fill(CacheConfig, args))


if __name__ == "__main__":
    run(main)
