"""Every flag, once: parsed into the dataclasses of engine/config.py. Only scripts import this."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from datasets import DataError
from datasets.sources.choose import SOURCE_KINDS
from engine import UsageError, distributed
from engine.config import CacheConfig, DataConfig, Recipe, TestConfig, TrainingConfig
from engine.console import console
from engine.files import DEFAULT_CACHE, CheckpointError, resolve
from engine.flag_types import (
    above_zero,
    fraction,
    non_negative,
    not_below_zero,
    path,
    plain_name,
    positive,
    seed_number,
    shard,
    share,
    time_order,
)
from engine.training.epoch import AMP_TYPES, NonFiniteLoss
from models.archs import ArchError
from opt import SCHEDULERS

USER_ERRORS = (ArchError, CheckpointError, DataError, NonFiniteLoss, UsageError, OSError)
YES = {"action": "store_true"}
YES_OR_NO = {"action": argparse.BooleanOptionalAction}
Config = TypeVar("Config")


def run(main: Callable[[], int | None]) -> None:
    """Runs a script: a user's mistake becomes one readable line and exit code 1."""
    with console():
        try:
            with distributed.processes():
                code = main()
        except USER_ERRORS as error:
            # After a loader process's error the message follows that process's traceback.
            distributed.report_error(str(error).rpartition(f"{type(error).__name__}: ")[2].strip())
            code = 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        except Exception:  # a mistake of ours: here, where names in it are escaped
            traceback.print_exc()
            code = 1
    sys.exit(code)


def fill(config: type[Config], args: argparse.Namespace, **given: Any) -> Config:
    """A config of parsed flags, those inside it too; `given` are fields that no flag says."""
    for field in fields(config):
        if hasattr(args, field.name):
            given.setdefault(field.name, getattr(args, field.name))
        elif is_dataclass(field.type):
            given.setdefault(field.name, fill(field.type, args))
    return config(**given)


def new_parser(
    description: str, *configs: type, parents: Sequence[argparse.ArgumentParser] = (), **defaults
) -> argparse.ArgumentParser:
    """A parser whose flags have the defaults of these configs' fields, or other `defaults`."""
    parser = argparse.ArgumentParser(
        description=description,
        parents=parents,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for config in configs:
        own = {f.name: f.default for f in fields(config) if f.default is not MISSING}
        parser.set_defaults(**own)
    parser.set_defaults(**defaults)
    return parser


def places_parent(dataset: str | None = None) -> argparse.ArgumentParser:
    """Flags that say which dataset, and where its lists and images lie.

    `dataset` is the default name; without one the flag is required.
    """
    parent = argparse.ArgumentParser(add_help=False)
    add = parent.add_argument_group("dataset").add_argument
    add(
        "--dataset",
        "-d",
        type=plain_name,
        default=dataset,
        required=dataset is None,
        help="its name" + (" (%(default)s)" if dataset else ""),
    )
    add("--settings", type=path, metavar="DIR", help="folder of the lists (datasets/settings)")
    add(
        "--frames",
        type=path,
        metavar="DIR",
        help="frame folders, packs or videos (datasets/<dataset>_frames, else ..._videos)",
    )
    return parent


def data_script_parser(description: str, dataset: str | None = None) -> argparse.ArgumentParser:
    """The parser of a script that makes or checks data; `dataset` is the default name."""
    parser = new_parser(description, parents=[places_parent(dataset)])
    parser.add_argument("-j", "--workers", type=positive, default=2, help="(%(default)s)")
    return parser


def data_places(args: argparse.Namespace) -> tuple[Path, Path]:
    """The dataset's frames, and the folder of all datasets' lists, that the flags name."""
    frames = resolve(args.frames, f"datasets/{args.dataset}_frames")
    return frames, resolve(args.settings, "datasets/settings")


def data_parent() -> argparse.ArgumentParser:
    """Flags of every script that reads clips: which data, and where to compute."""
    parent = argparse.ArgumentParser(add_help=False, parents=[places_parent(DataConfig.dataset)])
    add = parent.add_argument_group("data and device").add_argument
    add("-s", "--split", type=positive, default=1, help="split number (%(default)s)")
    add("--source", choices=SOURCE_KINDS, help="what to read (the first of these that is there)")
    add(
        "--scaled-decoding",
        **YES,
        help="decode JPEGs of twice the size or more at a fraction of it: faster, other pixels",
    )
    add(
        "--max-megapixels",
        type=above_zero,
        default=DataConfig.max_megapixels,
        metavar="N",
        help="largest image that is read; a larger one is an error (%(default)g)",
    )
    add("-j", "--workers", type=non_negative, default=2, help="loader processes (%(default)s)")
    add("--device", help="cuda, cpu, mps, ...; default: cuda if there is one")
    return parent


def training_parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """The training scripts' parser: the published flags with a script's own `defaults`."""
    configs = (DataConfig, Recipe, TrainingConfig)
    parser = new_parser(description, *configs, parents=[data_parent()], **defaults)
    add = parser.add_argument_group("training").add_argument
    add("--arch", "-a", help="architecture (%(default)s)")
    add("--epochs", type=positive, help="(%(default)s)")
    add("-b", "--batch-size", type=positive, help="videos (%(default)s)")
    add("--iter-size", type=positive, help="batches a step (%(default)s)")
    add("--lr", "--learning-rate", type=not_below_zero, help="learning rate (%(default)s)")
    add("--momentum", type=share, help="of SGD; of AdamW the first beta (%(default)s)")
    add("--weight-decay", "--wd", type=not_below_zero, help="(%(default)s)")
    add(
        "--flip",
        **YES_OR_NO,
        help="flip half of the clips; --no-flip where left and right are different classes",
    )
    add("--num-seg", type=positive, help="clips a video (%(default)s)")
    add("--scheduler", choices=SCHEDULERS, help="learning rate by epoch (%(default)s)")
    add("--warmup-epochs", type=non_negative, help="(%(default)s)")
    add("--max-steps", type=positive, help="end after so many optimizer steps in all, for trying")
    add("--seed", type=seed_number, help="of weights, order and crops (%(default)s)")
    _add_recipe_flags(parser)
    _add_file_flags(parser)
    return parser


def _add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """What docs/FINETUNING.md is about; the defaults are the published recipe."""
    add = parser.add_argument_group("fine-tuning (docs/FINETUNING.md says when)").add_argument
    add("--amp", choices=AMP_TYPES, help="mixed precision (%(default)s)")
    add("--clip-grad", type=above_zero, metavar="NORM", help="largest norm of the gradient")
    add("--ema", type=share, metavar="DECAY", help="average the weights over steps, e.g. 0.999")
    add("--freeze-bn", **YES, help="keep the backbone's batch norms as they are")
    add("--freeze-backbone", **YES, help="train the head and the reduction block alone")
    add(
        "--layer-decay",
        type=fraction,
        metavar="FACTOR",
        help="learning rate from each backbone stage to the one below it (%(default)s)",
    )
    add("--label-smoothing", type=share, metavar="SHARE", help="(%(default)s)")
    add("--mixup", type=not_below_zero, metavar="ALPHA", help="(%(default)s)")
    add("--drop-tokens", type=share, metavar="P", help="BERT's mask probability (0.2)")
    add("--sync-bn", **YES, help="batch statistics over all processes (GPUs)")
    add("--activation-checkpointing", **YES, help="less memory for a second forward pass")


def _add_file_flags(parser: argparse.ArgumentParser) -> None:
    """What a training starts from, writes, and says."""
    add = parser.add_argument_group("files").add_argument
    _add_weights_flag(add)
    add("--output", type=path, metavar="DIR", help="where runs are kept (checkpoint)")
    _add_cache_flag(add)
    add(
        "-c",
        "--continue",
        dest="resume",
        nargs="?",
        const="best",
        metavar="best|last|FILE",
        help="continue from the best model (or the last, or a file)",
    )
    add("-e", "--evaluate", **YES, help="validate the best model (or -c's), no more")
    add("--print-freq", type=positive, help="batches a line (%(default)s)")
    add("--save-freq", type=positive, help="epochs between checkpoints (%(default)s)")
    add("--save-steps", type=positive, metavar="N", help="also save every N optimizer steps")
    add(
        "--on-bad-sample",
        choices=("stop", "skip"),
        help="an unreadable video ends the run, or gives way to its neighbour (%(default)s)",
    )
    add("--max-bad", type=not_below_zero, metavar="PERCENT", help="of skip (%(default)s)")
    add("--skip-doctor", **YES, help="no check of lists against disk")
    add("--keep", type=non_negative, metavar="N", help="also keep the newest N epochs")


def _add_weights_flag(add: Callable[..., argparse.Action]) -> None:
    add(
        "--weights",
        metavar="auto|none|NAME|FILE",
        help="pretrained weights to start from; auto: the architecture's in weights/, if there are "
        "any; a NAME of scripts/weights.py list (%(default)s)",
    )


def _add_cache_flag(add: Callable[..., argparse.Action]) -> None:
    add(
        "--cache",
        type=path,
        nargs="?",
        const=DEFAULT_CACHE,
        metavar="DIR",
        help="take a frozen backbone's tokens from scripts/cache_tokens.py's files (docs/CACHE.md)",
    )


def training_config(parser: argparse.ArgumentParser, argv: list[str] | None) -> TrainingConfig:
    """Parses a training's flags; raises UsageError for flags that exclude each other."""
    args = parser.parse_args(argv)
    if args.cache is not None:
        if args.num_seg != 1 or args.flip is not None:
            raise UsageError(
                "--num-seg and --flip say which clips are made; with --cache they are made already"
            )
        args.freeze_backbone = True
    return fill(TrainingConfig, args)


def testing_parser(description: str) -> argparse.ArgumentParser:
    """The test scripts' parser, without the architectures and checkpoints."""
    parser = new_parser(description, DataConfig, TestConfig, parents=[data_parent()])
    add = parser.add_argument_group("testing").add_argument
    add(
        "--ten-crop",
        **YES_OR_NO,
        help="centre and corner crops, and the same flipped; or the centre alone",
    )
    add(
        "--time-order",
        type=time_order,
        metavar="ORDER",
        help="of the tokens: reversed, shuffled, or their places, as 1,0,2 (%(default)s)",
    )
    add("--batch-size", type=positive, help="clips at once (10 on a GPU, 2 on a CPU)")
    add("--runs", type=path, metavar="DIR", help="where training kept its runs (checkpoint)")
    add("--results", type=path, metavar="DIR", help="where results go (results)")
    add("--scores", type=path, metavar="FILE.npz", help="write the scores there")
    _add_cache_flag(add)
    return parser


def single_stream_parser(description: str) -> argparse.ArgumentParser:
    """The parser of the tests of one network."""
    parser = testing_parser(description)
    add = parser.add_argument_group("network").add_argument
    add("--arch", "-a", default="rgb_resneXt3D64f101_bert10_FRMB", help="(%(default)s)")
    add("--checkpoint", type=path, metavar="FILE", help="weights (the run's best model)")
    return parser


def caching_parser(description: str) -> argparse.ArgumentParser:
    """The parser of scripts/cache_tokens.py."""
    parser = new_parser(description, DataConfig, CacheConfig, parents=[data_parent()])
    add = parser.add_argument_group("network").add_argument
    add("--arch", "-a", required=True, help="its head does not matter, unless that is NLB")
    _add_weights_flag(add)
    add("--checkpoint", type=path, metavar="FILE", help="a trained network of that architecture")
    add("--batch-size", type=positive, help="clips at once (10 on a GPU, 2 on a CPU)")
    add = parser.add_argument_group("views").add_argument
    add("--views", type=positive, help="random ones a training video (%(default)s)")
    add("--clips", choices=("multi", "single"), help="of the test (%(default)s)")
    add("--ten-crop", **YES_OR_NO, help="of the test, or the centre alone")
    add("--flip", **YES_OR_NO, help="as in training: flip half of the clips")
    add("--seed", type=seed_number, help="of the random views (%(default)s)")
    add = parser.add_argument_group("share and files").add_argument
    add("--part", choices=("train", "val", "both"), help="of the split (%(default)s)")
    add("--shard", type=shard, metavar="i/n", help="every n-th video, from i on")
    add("--cache", type=path, metavar="DIR", help="folder (datasets/<dataset>_tokens/...)")
    return parser
