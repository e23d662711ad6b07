"""A run's log of its epochs, a JSON line each: written by engine/training/log.py, read here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from datasets.files import DataError, decode_json, read_limited
from engine.metrics import Amount, Count

LOG_FILE = "log.jsonl"
_Percentage = Annotated[float, Meta(ge=0, le=100)]


@dataclass(frozen=True)
class PassRecord:
    """What a line says of one pass over a subset: loss in nats, accuracies in percent."""

    loss: Amount
    top1: _Percentage
    top3: _Percentage | None = None
    seconds_loading: Amount | None = None
    seconds_computing: Amount | None = None
    clips_per_second: Amount | None = None


@dataclass(frozen=True)
class EpochRecord:
    """A line of the log; epochs count from 1."""

    epoch: Annotated[int, Meta(ge=1, le=2**31)]
    train: PassRecord
    val: PassRecord
    lr: Amount | None = None
    steps: Count | None = None
    ema: PassRecord | None = None


def read_log(path: Path) -> tuple[list[tuple[EpochRecord, bytes]], list[bytes]]:
    """The epochs of a log, each with its line, and the lines that say none.

    Raises DataError for what is no readable file.
    """
    epochs, bad = [], []
    lines = read_limited(path, what="log").split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            epochs.append((decode_json(line, EpochRecord, f"{path}:{number}"), line))
        except DataError:
            bad += [line] if line.strip() else []
    return epochs, bad
