"""What the scripts share: argparse parents, path rules, and errors turned into exit codes."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from datasets import DataError
from datasets.sources.choose import SOURCE_KINDS
from engine import UsageError, distributed
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
    share,
    time_order,
)
from engine.learner import AMP_TYPES, NonFiniteLoss
from engine.testing.token_order import NORMAL
from models.archs import ArchError
from opt import SCHEDULERS

USER_ERRORS = (ArchError, CheckpointError, DataError, NonFiniteLoss, UsageError, OSError)


def run(main: Callable[[], int | None]) -> None:
    """Runs a script: a user's mistake becomes one readable line and exit code 1."""
    try:
        with distributed.processes():
            code = main()
        sys.exit(code)
    except USER_ERRORS as error:
        # Behind a loader process the message follows that process's traceback.
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        sys.exit(f"{distributed.who()}error: {message}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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
    parser = argparse.ArgumentParser(
        description=description,
        parents=[places_parent(dataset)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-j", "--workers", type=positive, default=2, help="(%(default)s)")
    return parser


def data_places(args: argparse.Namespace) -> tuple[Path, Path]:
    """The dataset's frames, and the folder of all datasets' lists, that the arguments name."""
    frames = resolve(args.frames, f"datasets/{args.dataset}_frames")
    return frames, resolve(args.settings, "datasets/settings")


def data_parent() -> argparse.ArgumentParser:
    """Flags that every script takes that reads clips: which data, and where to compute."""
    parent = argparse.ArgumentParser(add_help=False, parents=[places_parent("hmdb51")])
    data = parent.add_argument_group("data and device")
    data.add_argument("-s", "--split", type=positive, default=1, help="split number (%(default)s)")
    data.add_argument(
        "--source",
        choices=SOURCE_KINDS,
        help="which of them to read (the first that is there)",
    )
    data.add_argument(
        "--scaled-decoding",
        action="store_true",
        help="decode JPEGs of twice the size or more at a fraction of it: faster, other pixels",
    )
    data.add_argument(
        "-j", "--workers", type=non_negative, default=2, help="loader processes (%(default)s)"
    )
    data.add_argument("--device", help="cuda, cpu, mps, ...; default: cuda if there is one")
    return parent


def training_parser(
    description: str, arch: str, batch_size: int, iter_size: int, lr: float, print_freq: int
) -> argparse.ArgumentParser:
    """The training scripts' parser: the published flags with a script's own defaults."""
    parser = argparse.ArgumentParser(
        description=description,
        parents=[data_parent()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("training").add_argument
    add("--arch", "-a", default=arch, help="architecture (%(default)s)")
    add("--epochs", type=positive, default=200, help="(%(default)s)")
    add("-b", "--batch-size", type=positive, default=batch_size, help="videos (%(default)s)")
    add("--iter-size", type=positive, default=iter_size, help="batches a step (%(default)s)")
    add(
        "--lr",
        "--learning-rate",
        type=not_below_zero,
        default=lr,
        help="learning rate (%(default)s)",
    )
    add("--momentum", type=share, default=0.9, help="AdamW: first beta (%(default)s)")
    add("--weight-decay", "--wd", type=not_below_zero, default=1e-3, help="(%(default)s)")
    add(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="mirror half of the clips; --no-flip where left and right are different classes",
    )
    add("--num-seg", type=positive, default=1, help="clips a video (%(default)s)")
    add("--scheduler", choices=SCHEDULERS, default="plateau", help="(%(default)s)")
    add("--warmup-epochs", type=non_negative, default=0, help="(%(default)s)")
    add("--max-steps", type=positive, help="end after so many optimizer steps in all, for trying")
    add("--seed", type=seed_number, default=0, help="of weights, order and crops (%(default)s)")
    _add_recipe_flags(parser)
    _add_file_flags(parser, print_freq)
    return parser


def _add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """What docs/FINETUNING.md is about; the defaults are the published recipe."""
    add = parser.add_argument_group("fine-tuning (docs/FINETUNING.md says when)").add_argument
    yes = {"action": "store_true"}
    add("--amp", choices=AMP_TYPES, default="off", help="mixed precision (%(default)s)")
    add("--clip-grad", type=above_zero, metavar="NORM", help="largest norm of the gradient")
    add("--ema", type=share, metavar="DECAY", help="average the weights over steps, e.g. 0.999")
    add("--freeze-bn", **yes, help="keep the backbone's batch norms as they are")
    add("--freeze-backbone", **yes, help="train the head and the reduction block alone")
    add(
        "--layer-decay",
        type=fraction,
        default=1.0,
        metavar="FACTOR",
        help="learning rate from each backbone part to the one below it (%(default)s)",
    )
    add("--label-smoothing", type=share, default=0.0, metavar="SHARE", help="(%(default)s)")
    add("--mixup", type=not_below_zero, default=0.0, metavar="ALPHA", help="(%(default)s)")
    add("--drop-tokens", type=share, metavar="P", help="BERT's mask probability (0.2)")
    add("--sync-bn", **yes, help="batch statistics over all processes (GPUs)")
    add("--activation-checkpointing", **yes, help="less memory for a second forward pass")


def _add_file_flags(parser: argparse.ArgumentParser, print_freq: int) -> None:
    """What a training starts from, writes, and says."""
    add = parser.add_argument_group("files").add_argument
    add(
        "--weights",
        default="auto",
        metavar="auto|none|NAME|FILE",
        help="pretrained weights to start from; auto: the architecture's in weights/, if there are "
        "any; a NAME of scripts/weights.py list (%(default)s)",
    )
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
    add("-e", "--evaluate", action="store_true", help="validate the best model (or -c's), no more")
    add("--print-freq", type=positive, default=print_freq, help="batches a line (%(default)s)")
    add("--save-freq", type=positive, default=1, help="epochs between checkpoints (%(default)s)")
    add("--save-steps", type=positive, metavar="N", help="also save every N optimizer steps")
    add(
        "--on-bad-sample",
        choices=("stop", "skip"),
        default="stop",
        help="an unreadable video ends the run, or gives way to its neighbour (%(default)s)",
    )
    add(
        "--max-bad",
        type=not_below_zero,
        default=1.0,
        metavar="PERCENT",
        help="of skip (%(default)s)",
    )
    add("--skip-doctor", action="store_true", help="no check of lists against disk")
    add("--keep", type=non_negative, default=0, metavar="N", help="also keep the newest N epochs")


def _add_cache_flag(add: Callable[..., argparse.Action]) -> None:
    add(
        "--cache",
        type=path,
        nargs="?",
        const=DEFAULT_CACHE,
        metavar="DIR",
        help="take a frozen backbone's tokens from scripts/cache_tokens.py's files (docs/CACHE.md)",
    )


def testing_parser(description: str) -> argparse.ArgumentParser:
    """The test scripts' parser, without the architectures and checkpoints."""
    parser = argparse.ArgumentParser(
        description=description,
        parents=[data_parent()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("testing").add_argument
    add(
        "--ten-crop",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="centre and corner crops and their mirror images, or the centre alone",
    )
    add(
        "--time-order",
        type=time_order,
        default=NORMAL,
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
