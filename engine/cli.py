"""What the scripts share: argparse parents, path rules, and errors turned into exit codes."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from datasets import DataError
from engine.checkpoint import CheckpointError
from engine.loop import NonFiniteLoss
from models.archs import ArchError
from opt import SCHEDULERS

ROOT = Path(__file__).resolve().parents[1]


class UsageError(ValueError):
    """A command line that cannot be carried out; the message says what to change."""


USER_ERRORS = (ArchError, CheckpointError, DataError, NonFiniteLoss, UsageError, OSError)


def resolve(given: Path | None, default: str) -> Path:
    """A given path, seen from the current folder; a default lies in the repository."""
    return given.expanduser().resolve() if given is not None else ROOT / default


def run(main: Callable[[], int | None]) -> None:
    """Runs a script: a user's mistake becomes one readable line and exit code 1."""
    try:
        sys.exit(main())
    except USER_ERRORS as error:
        # Behind a loader process the message follows that process's traceback.
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        sys.exit(f"error: {message}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def positive(text: str) -> int:
    """argparse type: a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def non_negative(text: str) -> int:
    """argparse type: a whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {value}")
    return value


def share(text: str) -> float:
    """argparse type: from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, not {text}")
    return value


def not_below_zero(text: str) -> float:
    """argparse type: a finite number from 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def data_parent() -> argparse.ArgumentParser:
    """Flags that every script takes: which data, and where to compute."""
    parent = argparse.ArgumentParser(add_help=False)
    data = parent.add_argument_group("data and device")
    data.add_argument("--dataset", "-d", default="hmdb51", help="name of the dataset (%(default)s)")
    data.add_argument("-s", "--split", type=positive, default=1, help="split number (%(default)s)")
    data.add_argument("--settings", type=Path, help="folder of the lists (datasets/settings)")
    data.add_argument("--frames", type=Path, help="frame folders (datasets/<dataset>_frames)")
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
    add("--seed", type=non_negative, default=0, help="of weights, order and crops (%(default)s)")
    _add_file_flags(parser, print_freq)
    return parser


def _add_file_flags(parser: argparse.ArgumentParser, print_freq: int) -> None:
    """What a training starts from, writes, and says."""
    add = parser.add_argument_group("files").add_argument
    add("--weights", type=Path, metavar="FILE", help="pretrained weights to start from")
    add("--output", type=Path, metavar="DIR", help="where runs are kept (checkpoint)")
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
    add("--batch-size", type=positive, help="clips at once (10 on a GPU, 2 on a CPU)")
    add("--runs", type=Path, metavar="DIR", help="where training kept its runs (checkpoint)")
    add("--results", type=Path, metavar="DIR", help="where results go (results)")
    add("--scores", type=Path, metavar="FILE.npz", help="write the scores there")
    return parser


def single_stream_parser(description: str) -> argparse.ArgumentParser:
    """The parser of the tests of one network."""
    parser = testing_parser(description)
    add = parser.add_argument_group("network").add_argument
    add("--arch", "-a", default="rgb_resneXt3D64f101_bert10_FRMB", help="(%(default)s)")
    add("--checkpoint", type=Path, metavar="FILE", help="weights (the run's best model)")
    return parser


def choose_device(name: str | None) -> torch.device:
    """The device asked for, else a GPU if there is one; raises UsageError for one that is not."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot use --device {name}: {reason}") from None
    torch.backends.cudnn.benchmark = True  # clips of one size: the search for algorithms pays
    return device
