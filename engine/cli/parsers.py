"""The training scripts' parser, and the flags that it has in common with others."""

import argparse
from collections.abc import Callable
from typing import Any

from engine import UsageError
from engine.cli.base import (
    YES,
    YES_OR_NO,
    add_augmentation_flags,
    data_parent,
    fill,
    new_parser,
)
from engine.cli.flag_types import (
    above_zero,
    auto_or_positive,
    best_of_run,
    fraction,
    non_negative,
    not_below_zero,
    path,
    positive,
    seed_number,
    share,
)
from engine.config import (
    RECIPES,
    DataConfig,
    Recipe,
    SpeedConfig,
    TrainingConfig,
)
from engine.files import DEFAULT_CACHE
from engine.speed import AMP_TYPES, PRESETS
from opt import SCHEDULERS


def training_parser(description: str, recipe: str, **defaults: Any) -> argparse.ArgumentParser:
    """The training scripts' parser: a named recipe's flags, with a script's own `defaults`."""
    configs = (DataConfig, Recipe, TrainingConfig, SpeedConfig)
    defaults |= {"recipe_name": recipe} | RECIPES[recipe].fields
    parser = new_parser(description, *configs, parents=[data_parent()], **defaults)
    add = parser.add_argument_group("training").add_argument
    add(
        "--recipe",
        dest="recipe_name",
        choices=RECIPES,
        help="flags that go together, printed; single flags win over it (%(default)s)",
    )
    add("--arch", "-a", help="the network, one of scripts/list_archs.py (%(default)s)")
    add("--epochs", type=positive, help="passes over the training list (%(default)s)")
    add(
        "-b",
        "--batch-size",
        type=auto_or_positive,
        metavar="N|auto",
        help="videos in a batch (%(default)s); auto: as many as fit into memory, with an "
        "--iter-size that keeps the effective batch, %(default)s x --iter-size",
    )
    add("--iter-size", type=positive, help="batches to an optimizer step (%(default)s)")
    add(
        "--lr",
        "--learning-rate",
        type=not_below_zero,
        help="learning rate of the first epoch (%(default)s)",
    )
    add("--momentum", type=share, help="momentum of SGD; of AdamW the first beta (%(default)s)")
    add(
        "--weight-decay",
        "--wd",
        type=not_below_zero,
        help="share of the weights that a step takes off, times the rate (%(default)s)",
    )
    add(
        "--flip",
        **YES_OR_NO,
        help="flip half of the clips; --no-flip where left and right are different classes",
    )
    add("--num-seg", type=positive, help="clips of each video in training (%(default)s)")
    add(
        "--scheduler",
        choices=SCHEDULERS,
        help="how the learning rate changes by epoch (%(default)s)",
    )
    help = "epochs in which the learning rate rises to --lr (%(default)s)"
    add("--warmup-epochs", type=non_negative, help=help)
    add("--max-steps", type=positive, help="end after so many optimizer steps in all, for trying")
    add("--seed", type=seed_number, help="seed of new weights, order and crops (%(default)s)")
    add_speed_flags(parser)
    _add_recipe_flags(parser)
    _add_file_flags(parser)
    return parser


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    """How the network is computed; the single flags win over the preset."""
    add = parser.add_argument_group("speed (docs/PERFORMANCE.md)").add_argument
    add(
        "--speed",
        choices=PRESETS,
        help="exact: float32; fast: bfloat16 where the device computes it; max: also tries faster "
        "variants first and checks them (fast on such GPUs, else exact)",
    )
    add("--amp", choices=AMP_TYPES, help="number type of mixed precision (as --speed says)")
    help = "keep channels last in memory, or first (as --speed says)"
    add("--channels-last", **YES_OR_NO, help=help)
    add("--compile", **YES_OR_NO, help="try variants that cost a warm-up, as max does")


def _add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """What docs/FINETUNING.md is about; the defaults are the published recipe."""
    add = parser.add_argument_group("fine-tuning (docs/FINETUNING.md says when)").add_argument
    add("--clip-grad", type=above_zero, metavar="NORM", help="largest norm of the gradient")
    add("--ema", type=share, metavar="DECAY", help="average the weights over steps, e.g. 0.999")
    add("--freeze-bn", **YES, help="keep the backbone's batch norms as they are")
    add("--freeze-backbone", **YES, help="train the head and the reduction block alone")
    add(
        "--layer-decay",
        type=fraction,
        metavar="FACTOR",
        help="factor of the learning rate from a backbone stage to the one below (%(default)s)",
    )
    help = "share of a label that goes to all classes (%(default)s)"
    add("--label-smoothing", type=share, metavar="SHARE", help=help)
    help = "mix pairs of videos by Beta(ALPHA, ALPHA); 0: never (%(default)s)"
    add("--mixup", type=not_below_zero, metavar="ALPHA", help=help)
    add_augmentation_flags(add)
    add(
        "--drop-tokens",
        type=share,
        metavar="P",
        help="probability that BERT's training drops a token (0.2)",
    )
    help = "probability that training leaves out a clip's last residual block, earlier ones less "
    help += "often (0; Swin 0.1, MViT 0.2)"
    add("--drop-path", type=share, metavar="P", help=help)
    add("--sync-bn", **YES, help="batch statistics over all processes (GPUs)")
    add(
        "--activation-checkpointing",
        **YES,
        help="compute activations twice instead of keeping them: less memory, more time",
    )


def _add_file_flags(parser: argparse.ArgumentParser) -> None:
    """What a training starts from, writes, and says."""
    add = parser.add_argument_group("files").add_argument
    add_weights_flag(add)
    add(
        "--init-from",
        dest="weights",
        default=argparse.SUPPRESS,
        type=best_of_run,
        metavar="RUN",
        help="start from another run's best model, as --weights FILE does: its backbone, and its "
        "head where it fits; e.g. a head trained on a cache before its backbone learns, too",
    )
    add("--output", type=path, metavar="DIR", help="folder in which runs are kept (checkpoint)")
    add_cache_flag(add)
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
    add(
        "--print-freq",
        type=positive,
        help="batches from one printed line to the next (%(default)s)",
    )
    add("--save-freq", type=positive, help="epochs from one checkpoint to the next (%(default)s)")
    add("--save-steps", type=positive, metavar="N", help="also save every N optimizer steps")
    add(
        "--on-bad-sample",
        choices=("stop", "skip"),
        help="an unreadable video ends the run, or gives way to its neighbour (%(default)s)",
    )
    help = "of the videos, that --on-bad-sample skip may replace (%(default)s)"
    add("--max-bad", type=not_below_zero, metavar="PERCENT", help=help)
    add("--skip-doctor", **YES, help="do not check the lists against the disk before training")
    add(
        "--keep",
        type=non_negative,
        metavar="N",
        help="also keep the checkpoints of the newest N epochs",
    )


def add_weights_flag(add: Callable[..., argparse.Action]) -> None:
    add(
        "--weights",
        metavar="auto|none|NAME|FILE",
        help="pretrained weights to start from; auto: the architecture's in weights/, if there are "
        "any; a NAME of scripts/weights.py list (%(default)s)",
    )


def add_cache_flag(add: Callable[..., argparse.Action]) -> None:
    add(
        "--cache",
        type=path,
        nargs="?",
        const=DEFAULT_CACHE,
        metavar="DIR",
        help="take a frozen backbone's tokens from scripts/cache_tokens.py's files (docs/CACHE.md)",
    )
    add(
        "--at",
        metavar="STAGE",
        help="with --cache: its maps in front of that stage, as I3D's Mixed_5b",
    )


def training_config(parser: argparse.ArgumentParser, argv: list[str] | None) -> TrainingConfig:
    """Parses a training's flags; raises UsageError for flags that exclude each other."""
    args = parser.parse_args(argv)
    usual = parser.get_default("recipe_name")
    if args.recipe_name != usual:
        args = _with_recipe(parser, argv, args.recipe_name, RECIPES[usual].optimizer)
    if args.cache is not None:
        if args.num_seg != 1 or args.flip is not None:
            raise UsageError(
                "--num-seg and --flip say which clips are made; with --cache they are made already"
            )
        if args.rand_augment is not None or args.random_erasing or args.color_jitter:
            raise UsageError(
                "--rand-augment, --random-erasing and --color-jitter change clips; with --cache "
                "give them to scripts/cache_tokens.py, which makes its training views with them"
            )
        if args.batch_size == "auto":
            raise UsageError("--batch-size auto is for clips; tokens of --cache are small")
        args.freeze_backbone = args.freeze_backbone or args.at is None
    elif args.at is not None:
        raise UsageError("--at says where a --cache begins; give both")
    if args.drop_path is not None and args.freeze_backbone:
        raise UsageError(
            "--drop-path leaves out blocks of a backbone that learns; here it is frozen: leave out "
            "--freeze-backbone, and with --cache give --at"
        )
    if args.batch_size == "auto":
        args.auto_batch, args.batch_size = True, parser.get_default("batch_size")
    return fill(TrainingConfig, args)


def _with_recipe(
    parser: argparse.ArgumentParser, argv: list[str] | None, name: str, optimizer: str
) -> argparse.Namespace:
    """The flags, where a recipe's are the defaults; prints these."""
    recipe = RECIPES[name]
    if recipe.optimizer != optimizer:
        script = {"sgd": "two_stream2.py", "adamw": "two_stream_bert2.py"}[recipe.optimizer]
        raise UsageError(f"--recipe {name} is for {recipe.optimizer}; train with {script}")
    parser.set_defaults(**recipe.fields)
    print(f"--recipe {name}: {' '.join(recipe.flags())}")
    return parser.parse_args(argv)
