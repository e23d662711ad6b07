"""The logs of the runs that tested networks come from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DataError
from datasets.files import read_json
from engine.training.records import LOG_FILE, EpochRecord, read_log


@dataclass(frozen=True)
class Training:
    """A run's log: its folder's name, its flags, and its epochs in order."""

    name: str
    flags: Mapping[str, Any]
    epochs: Sequence[EpochRecord]


def read_trainings(folders: Sequence[Path]) -> tuple[list[Training], list[str]]:
    """The logs in those of the folders that have one, and why some cannot be read.

    Of two folders of one name the first counts: a run that was moved is found by --runs.
    """
    found, notes = {}, []
    for folder in folders:
        if folder.name in found or not os.path.lexists(folder / LOG_FILE):
            continue
        try:
            # an epoch that was run twice shows the last run
            epochs = {epoch.epoch: epoch for epoch, _ in read_log(folder / LOG_FILE)[0]}
            flags = folder / "args.json"
            flags = read_json(flags, dict[str, Any]) if os.path.lexists(flags) else {}
        except DataError as error:
            notes.append(f"no training curves: {error}")
            continue
        if epochs:
            in_order = [epochs[number] for number in sorted(epochs)]
            found[folder.name] = Training(folder.name, flags, in_order)
    return list(found.values()), notes
