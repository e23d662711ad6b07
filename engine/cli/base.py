"""What scripts share: how flags become configs, the flags that name data, or change clips."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from datasets.prepare.collect import SplitRule
from datasets.sources.choose import SOURCE_KINDS
from engine.cli.flag_types import (
    above_zero,
    magnitude,
    non_negative,
    number,
    path,
    plain_name,
    positive,
    probability,
    regex,
)
from engine.config import DataConfig
from engine.files import resolve

YES = {"action": "store_true"}
YES_OR_NO = {"action": argparse.BooleanOptionalAction}
Config = TypeVar("Config")


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong flag with one line, not with all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help explains the flags)\n")


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
    parser = Parser(
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
        help="name of the dataset" + (" (%(default)s)" if dataset else ""),
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
    help = "processes that work at once (%(default)s)"
    parser.add_argument("-j", "--workers", type=positive, default=2, help=help)
    return parser


def split_flags(parser: argparse.ArgumentParser) -> Callable[..., argparse.Action]:
    """Adds the flags that split videos into training and test; returns what adds more of them."""
    parser.set_defaults(**{field.name: field.default for field in fields(SplitRule)})
    group = parser.add_argument_group("split: by patterns, by the csv, or at random")
    add = group.add_argument
    add(
        "-s", "--split", type=positive, default=1, help="number of the split to write (%(default)s)"
    )
    add("--train", metavar="PATTERN", help="shell pattern on names of training videos")
    add("--val", metavar="PATTERN", help="shell pattern on names of test videos")
    val_share = number(float, 0, 0.95, above=True)
    add("--val-share", type=val_share, help="share of test videos (%(default)s)")
    add("--group", type=regex, metavar="REGEX", help="videos that match alike stay together")
    add("--seed", type=int, help="seed of the random split (%(default)s)")
    return add


def data_places(args: argparse.Namespace) -> tuple[Path, Path]:
    """The dataset's frames, and the folder of all datasets' lists, that the flags name."""
    frames = resolve(args.frames, f"datasets/{args.dataset}_frames")
    return frames, resolve(args.settings, "datasets/settings")


def data_parent() -> argparse.ArgumentParser:
    """Flags of every script that reads clips: which data, and where to compute."""
    parent = argparse.ArgumentParser(add_help=False, parents=[places_parent(DataConfig.dataset)])
    add = parent.add_argument_group("data and device").add_argument
    add("-s", "--split", type=positive, default=1, help="number of the split (%(default)s)")
    add(
        "--source",
        choices=SOURCE_KINDS,
        help="what to read images from (the first of these that is there)",
    )
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
        help="largest image that is read, in millions of pixels; a larger one is an error "
        "(%(default)g)",
    )
    add(
        "-j",
        "--workers",
        type=non_negative,
        default=2,
        help="processes that load clips; 0: none beside this one (%(default)s)",
    )
    add("--device", help="where to compute: cuda, cpu, mps, ... (cuda if there is one)")
    return parent


def add_augmentation_flags(add: Callable[..., argparse.Action]) -> None:
    """How training clips are augmented, alike on all frames."""
    help = "two random operations of that magnitude, 0 to 30, on each training clip (none); RGB"
    add("--rand-augment", type=magnitude, metavar="MAGNITUDE", help=help)
    help = "probability that a box of a training clip is erased (%(default)s)"
    add("--random-erasing", type=probability, metavar="P", help=help)
    add(
        "--color-jitter",
        type=probability,
        metavar="STRENGTH",
        help="largest change of brightness, contrast and saturation of a training clip, as a "
        "share, 0 to 1; RGB (%(default)s)",
    )
