"""What all scripts share: their errors, how flags become configs, and the flags that name data."""

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
from engine.cli.flag_types import (
    above_zero,
    non_negative,
    path,
    plain_name,
    positive,
)
from engine.config import DataConfig
from engine.console import console
from engine.files import CheckpointError, resolve
from engine.loading import is_loader_death
from engine.training.sums import NonFiniteLoss
from models.archs import ArchError

USER_ERRORS = (ArchError, CheckpointError, DataError, NonFiniteLoss, UsageError, OSError)
YES = {"action": "store_true"}
YES_OR_NO = {"action": argparse.BooleanOptionalAction}
Config = TypeVar("Config")


def last_words(error: Exception) -> str:
    """Its message; a loader process's error has that process's traceback before it."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def run(main: Callable[[], int | None]) -> None:
    """Runs a script: a user's mistake becomes one readable line and exit code 1."""
    with console():
        try:
            with distributed.processes():
                code = main()
        except USER_ERRORS as error:
            distributed.report_error(last_words(error))
            code = 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        except Exception as error:
            if is_loader_death(error):
                distributed.report_error(f"a loader process died: {error}")
            elif distributed.lacks_memory(error):
                advice = "a smaller --batch-size or fewer --workers need less"
                reasons = [*last_words(error).splitlines()[:1], advice]
                distributed.report_error(f"out of memory: {'; '.join(reasons)}")
            else:  # a mistake of ours: here, where names in it are escaped
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
