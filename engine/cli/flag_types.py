"""argparse types: a flag's text -> a value in its range, or an error that states the range."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from datasets.files import DataError, check_name
from datasets.prepare.collect import Shard
from engine import UsageError
from engine.checkpoint import BEST
from engine.testing.token_order import check_order


def number(
    kind: type, low: float, high: float = math.inf, above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """An argparse type: a finite number from `low` to `high`.

    Args:
        kind: int or float.
        above, below: whether `low`, and `high`, are excluded.
    """

    def parse(text: str) -> float:
        value = kind(text)
        in_range = (low < value if above else low <= value) and (
            value < high if below else value <= high
        )
        if not (in_range and math.isfinite(value)):
            wanted = f"{'above' if above else 'at least'} {low}"
            if high < math.inf:
                wanted += f" and {'below' if below else 'at most'} {high}"
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
        return value

    parse.__name__ = kind.__name__  # what argparse says of other text
    return parse


positive = number(int, 1)
non_negative = number(int, 0)
seed_number = number(int, 0, 2**31 - 1)  # what the random generators take
share = number(float, 0, 1, below=True)
not_below_zero = number(float, 0)
above_zero = number(float, 0, above=True)
fraction = number(float, 0, 1, above=True)
probability = number(float, 0, 1)
magnitude = number(int, 0, 30)  # of RandAugment
jpeg_quality = number(int, 1, 100)


def auto_or_positive(text: str) -> int | str:
    """argparse type: a number from 1, or "auto"."""
    return text if text == "auto" else positive(text)


def image_size(text: str) -> tuple[int, int] | None:
    """argparse type: WIDTHxHEIGHT, or "original" (None)."""
    if text == "original":
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like 170x128, or original, not {text}")
    return int(match[1]), int(match[2])


def path(text: str) -> Path:
    """argparse type: a path, ~ expanded."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("must be the name of a file or folder")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise argparse.ArgumentTypeError(str(error)) from None


def best_of_run(text: str) -> str:
    """argparse type: a run's folder, or a checkpoint in one -> the checkpoint's path."""
    named = path(text)
    file = named / BEST if named.is_dir() else named
    if not file.is_file():
        raise argparse.ArgumentTypeError(f"{file} is not there: no run that can be started from")
    return str(file.resolve())


def plain_name(text: str) -> str:
    """argparse type: a name that makes one folder's name."""
    if "\\" in text or text.startswith("."):
        raise argparse.ArgumentTypeError(f"must be a plain name, not '{text}'")
    try:
        return check_name(text, "the name")
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def shard(text: str) -> Shard:
    """argparse type: i/n, the i-th of n shares."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be i/n with i from 1 to n, not {text}")
    return Shard(int(number), int(count))


def regex(text: str) -> re.Pattern:
    """argparse type: a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression: {error}") from None


def time_order(text: str) -> str:
    """argparse type: an order of temporal tokens."""
    try:
        return check_order(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
