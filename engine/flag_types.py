"""argparse types: a flag's text -> a value in its range, or an error that states the range."""

import argparse
import re
from pathlib import Path

from datasets.prepare.collect import Shard
from engine import UsageError
from engine.testing.token_order import check_order


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


def above_zero(text: str) -> float:
    """argparse type: a finite number above 0."""
    value = not_below_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def fraction(text: str) -> float:
    """argparse type: above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return value


def seed_number(text: str) -> int:
    """argparse type: a whole number that the random generators take."""
    value = non_negative(text)
    if value >= 2**31:
        raise argparse.ArgumentTypeError(f"must be below 2147483648, not {value}")
    return value


def path(text: str) -> Path:
    """argparse type: a path, ~ expanded."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("must be the name of a file or folder")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise argparse.ArgumentTypeError(str(error)) from None


def plain_name(text: str) -> str:
    """argparse type: a name that makes one folder's name."""
    if not text or "\0" in text or "/" in text or "\\" in text or text.startswith("."):
        raise argparse.ArgumentTypeError(f"must be a plain name, not '{text}'")
    return text


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
