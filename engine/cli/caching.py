"""The parser of scripts/cache_tokens.py."""

import argparse

from engine.cli.base import YES_OR_NO, add_augmentation_flags, data_parent, new_parser
from engine.cli.flag_types import path, positive, seed_number, shard
from engine.cli.parsers import add_speed_flags, add_weights_flag
from engine.config import AugmentConfig, CacheConfig, DataConfig, SpeedConfig
from engine.tokens.arrays import STORED


def caching_parser(description: str) -> argparse.ArgumentParser:
    """The parser of scripts/cache_tokens.py."""
    configs = (DataConfig, CacheConfig, SpeedConfig, AugmentConfig)
    parser = new_parser(description, *configs, parents=[data_parent()])
    add = parser.add_argument_group("network").add_argument
    add(
        "--arch",
        "-a",
        required=True,
        help="the network, one of scripts/list_archs.py; its head does not "
        "matter, unless that is NLB",
    )
    add_weights_flag(add)
    add("--checkpoint", type=path, metavar="FILE", help="a trained network of that architecture")
    help = "views that pass through the network at once (10 on a GPU, 4 on a CPU)"
    add("--batch-size", type=positive, help=help)
    add_speed_flags(parser)
    add = parser.add_argument_group("views").add_argument
    add("--views", type=positive, help="random views kept of each training video (%(default)s)")
    add(
        "--clips",
        choices=("multi", "single"),
        help="clips kept of each test video: all, or the central one (%(default)s)",
    )
    add("--ten-crop", **YES_OR_NO, help="ten crops of each test clip, or the centre alone")
    add("--flip", **YES_OR_NO, help="as in training: flip half of the clips")
    add("--seed", type=seed_number, help="seed of the random views (%(default)s)")
    add_augmentation_flags(add)
    add = parser.add_argument_group("share and files").add_argument
    add(
        "--part",
        choices=("train", "val", "both"),
        help="which lists of the split to cache (%(default)s)",
    )
    add("--shard", type=shard, metavar="i/n", help="cache every n-th video, from the i-th on")
    add(
        "--cache",
        type=path,
        metavar="DIR",
        help="folder to write the cache in (datasets/<dataset>_tokens/...)",
    )
    add(
        "--at",
        metavar="STAGE",
        help="keep the maps in front of a stage, as I3D's Mixed_5b, which then learns (tokens)",
    )
    add(
        "--numbers",
        choices=list(STORED),
        help="number type of the files: float16 is more exact, bfloat16 holds values beyond 65504",
    )
    return parser
