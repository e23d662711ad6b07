"""Score files grouped into runs: one network tested in one way, on one or more splits."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets import DataError
from datasets.files import printable
from engine.testing.score_files import ScoreFile, check_classes
from engine.testing.token_order import NORMAL


@dataclass(frozen=True)
class Run:
    """One network tested in one way, on one or more splits.

    Attributes:
        name: unlike that of any other run.
        splits: split number -> its scores; a file that names no split counts as split 1.
    """

    name: str
    splits: Mapping[int, ScoreFile]


def group_runs(files: Sequence[ScoreFile]) -> list[Run]:
    """Puts the splits of a run together, in the order of the first file of each.

    Files belong together when their JSONs agree on dataset, arch, clips and crops, and without a
    JSON when their names differ by `split<k>` alone. Where that gives a run two files of one
    split, their folders tell them apart, or what these lie in, or else each file is a run.

    Raises DataError if a file is given twice, or the splits of a run have different classes.
    """
    path, times = Counter(file.path.resolve() for file in files).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path} is given twice")
    names = [_run_name(file) for file in files]
    for finer in (
        lambda file: file.path.parent.name,
        lambda file: file.path.resolve().parent.parent.name,  # of ablations: <output>/scores/<file>
        lambda file: file.path,
    ):
        taken = Counter(zip(names, map(_split, files), strict=True))
        crowded = {name for (name, _), count in taken.items() if count > 1}
        names = [
            f"{name} [{finer(file)}]" if name in crowded else name
            for name, file in zip(names, files, strict=True)
        ]
    runs: dict[str, dict[int, ScoreFile]] = {}
    for name, file in zip(names, files, strict=True):
        splits = runs.setdefault(name, {})
        for earlier in splits.values():
            check_classes(earlier, file)
        splits[_split(file)] = file
    return [Run(name, dict(sorted(splits.items()))) for name, splits in runs.items()]


def _run_name(file: ScoreFile) -> str:
    test = file.metadata
    if not test:
        return printable(re.sub(r"[_-]?split\d+", "", file.path.stem))
    crops = "1 crop" if test["crops"] == 1 else f"{test['crops']} crops"
    order = "" if test["time_order"] == NORMAL else f", {test['time_order']}"
    return printable(f"{test['dataset']} {test['arch']}, {test['clips']} clip, {crops}{order}")


def _split(file: ScoreFile) -> int:
    named = re.search(r"split(\d+)", file.path.stem)
    return file.metadata.get("split", int(named[1]) if named else 1)
