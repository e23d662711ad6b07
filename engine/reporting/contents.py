"""Score files and the JSONs beside them -> what a report shows, as plain records."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from datasets import DataError
from datasets.files import printable, read_json
from engine.analysis.summary import summarize_runs
from engine.config import ReportConfig
from engine.files import run_folder
from engine.metrics import confusion_matrix, predicted_classes, softmax, topk_hits, unit_scale
from engine.reporting.calibration import Reliability, reliability
from engine.reporting.trainings import Training, read_trainings
from engine.testing.score_files import ScoreFile, match_files, read_scores
from engine.testing.score_runs import group_runs
from models import get_arch
from models.archs import ArchError


@dataclass(frozen=True)
class TestRecord:
    """What the JSON beside a score file says, as far as a report shows it."""

    dataset: str | None = None
    split: int | None = None
    checkpoint: str | None = None
    checkpoints: tuple[str, ...] = ()
    settings: str | None = None
    frames: str | None = None
    command: str = ""
    finished: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tested:
    """One network, or a fusion, tested on one split.

    Attributes:
        name: short, unlike any other's.
        kind: "rgb", "flow", "fused", or "" where that is not known.
        scores: its score file, the videos in the order of its set's.
        record: what is known of the test.
        numbers: accuracies with intervals, an entry of `summarize_runs`.
        probabilities: float64 (N, classes), NaN where there are no scores.
        predicted: int64 (N,), -1 where there are no scores.
        correct: bool (N,).
        confusion: int64 (classes, classes), by label and predicted class.
        parts: places, in the report's list, of the streams of a fusion.
    """

    name: str
    kind: str
    scores: ScoreFile
    record: TestRecord
    numbers: Mapping[str, Any]
    probabilities: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    confusion: np.ndarray
    reliability: Reliability | None
    parts: tuple[int, ...] = ()

    @property
    def short(self) -> str:
        """Its name without the split: among the tests of the same videos."""
        return self.name.partition(", split ")[0]

    @property
    def arch(self) -> str:
        """The architecture, of a fusion all; "" where no JSON says it."""
        return str(self.scores.metadata.get("arch", ""))


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows but pictures.

    Attributes:
        tests: those on the same videos beside one another, a fusion after its streams.
        sets: for each set of test videos the places of its tests in `tests`.
        summary: what `summarize_runs` returns of all files.
        runs: for each of the summary's runs the places of its tests, by split.
        notes: what could not be read.
    """

    tests: Sequence[Tested]
    sets: Sequence[Sequence[int]]
    trainings: Sequence[Training]
    summary: Mapping[str, Any]
    runs: Sequence[Sequence[int]]
    notes: Sequence[str]


def read_record(path: Path) -> TestRecord:
    """What a test's JSON says; an empty record without a file, or with a foreign one.

    Raises DataError, naming the file, for one that cannot be read.
    """
    if not os.path.lexists(path):
        return TestRecord()
    content = read_json(path, Any)
    if not isinstance(content, dict) or "dataset" not in content:
        return TestRecord()
    try:
        return msgspec.convert(content, TestRecord)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: not what a test writes: {error}") from None


def read_contents(
    config: ReportConfig, paths: Sequence[Path], summaries: Mapping[Path, Path] | None = None
) -> ReportContent:
    """Reads score files; a fusion's file that holds its streams' scores counts as all of them.

    Args:
        summaries: score file -> its JSON, of those that do not lie beside it.

    Raises DataError, naming the file, for one that is no score file.
    """
    # files
    files, records = [], {}
    for path in paths:
        file = read_scores(path)
        record = read_record((summaries or {}).get(path, path.with_suffix(".json")))
        for part in (*_streams_of(file), file):
            files.append(part)
            records[part.path] = record
    files = [file for file in files if file.path in paths or not _is_given(file, files, paths)]
    # accuracies
    runs = group_runs(files)
    summary = summarize_runs(runs)
    numbers = {
        run.splits[split["split"]].path: split
        for run, entry in zip(runs, summary["runs"], strict=True)
        for split in entry["splits"]
    }
    # tests
    files, sets = _in_sets(files)
    run_names = {file.path: run.name for run in runs for file in run.splits.values()}
    names = _short_names(files, [run_names[file.path] for file in files])
    tests = []
    for places in sets:
        for place in places:
            file = files[place]
            record, own = records[file.path], numbers[file.path]
            parts = tuple(_parts(file, [(other, files[other]) for other in places]))
            streams = [files[part].scores for part in parts]
            tests.append(_tested(names[place], file, record, own, parts, streams))
    of_path = {file.path: place for place, file in enumerate(files)}
    by_run = [[of_path[file.path] for file in run.splits.values()] for run in runs]
    folders = [folder for test in tests for folder in _run_folders(config, test)]
    trainings, notes = read_trainings(folders)
    return ReportContent(tests, sets, trainings, summary, by_run, notes)


def _streams_of(file: ScoreFile) -> list[ScoreFile]:
    """A fusion's streams, as if each had a file of its own."""
    return [
        replace(
            file,
            path=file.path.with_name(f"{file.path.stem} [{arch.replace('/', '_')}].npz"),
            scores=scores,
            clip_scores=None,
            clip_videos=None,
            metadata=file.metadata and {**file.metadata, "arch": arch},
            streams={},
        )
        for arch, scores in file.streams.items()
    ]


def _is_given(file: ScoreFile, files: Sequence[ScoreFile], paths: Sequence[Path]) -> bool:
    """Whether a stream has a score file of its own among those that are given."""
    given = (other for other in files if other.path in paths)
    return any(file.metadata and file.metadata == other.metadata for other in given)


def _in_sets(files: Sequence[ScoreFile]) -> tuple[list[ScoreFile], list[list[int]]]:
    """The files by the videos that they test, all of a set in one order; and each set's places.

    In a set RGB stands before flow, and both before their fusion.
    """
    sets: dict[object, list[ScoreFile]] = {}
    for file in files:
        key = file.classes, frozenset(zip(file.videos, file.labels.tolist(), strict=True))
        sets.setdefault(key, []).append(file)
    found, places = [], []
    for own in sets.values():
        own.sort(key=lambda file: (_kind(file) == "fused", _kind(file) == "flow"))
        places.append(list(range(len(found), len(found) + len(own))))
        for file in own:
            order = match_files(own[0], file)
            scores = file.scores[order]
            found.append(replace(file, videos=own[0].videos, labels=own[0].labels, scores=scores))
    return found, places


def _kind(file: ScoreFile) -> str:
    arch = str(file.metadata.get("arch", ""))
    if file.streams or len(arch.split("+")) > 1:
        return "fused"
    try:
        return get_arch(arch).modality
    except ArchError:
        return ""


def _short_names(files: Sequence[ScoreFile], runs: Sequence[str]) -> list[str]:
    """The shortest kind of names that tells all tests apart."""
    labels = {"rgb": "RGB", "flow": "Flow", "fused": "Fused"}
    kinds = [labels.get(_kind(file), "") for file in files]
    archs = [str(file.metadata.get("arch", "")) for file in files]
    splits = [str(file.metadata.get("split", "")) for file in files]
    for names in (kinds, archs, runs):
        with_split = [f"{n}, split {s}" for n, s in zip(names, splits, strict=True)]
        for own in (names, with_split):
            if all(names) and len(set(own)) == len(own):
                return [*own]
    return [printable(str(file.path)) for file in files]


def _parts(file: ScoreFile, others: Sequence[tuple[int, ScoreFile]]) -> Iterator[int]:
    """The places of a fusion's streams among the tests on the same videos."""
    archs = str(file.metadata.get("arch", "")).split("+")
    if _kind(file) != "fused":
        return
    for place, other in others:
        inside = other.path.name.startswith(f"{file.path.stem} [")
        same = {**file.metadata, "arch": ""} == {**other.metadata, "arch": ""}
        if inside or (file.metadata and same and other.metadata["arch"] in archs):
            yield place


def _tested(
    name: str,
    file: ScoreFile,
    record: TestRecord,
    numbers: Mapping[str, Any],
    parts: tuple[int, ...],
    streams: list[np.ndarray],
) -> Tested:
    scale = unit_scale(streams) if streams else 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        probabilities = softmax(file.scores * scale)
    correct = topk_hits(file.scores, file.labels, 1)
    return Tested(
        name=name,
        kind=_kind(file),
        scores=file,
        record=record,
        numbers=numbers,
        probabilities=probabilities,
        predicted=predicted_classes(file.scores),
        correct=correct,
        confusion=confusion_matrix(file.scores, file.labels),
        reliability=reliability(probabilities, correct),
        parts=parts,
    )


def _run_folders(config: ReportConfig, test: Tested) -> Iterator[Path]:
    """Where the training of a test's network may have been kept, --runs first."""
    record, arch = test.record, test.scores.metadata.get("arch")
    if config.runs and record.dataset and arch and test.kind != "fused":
        yield run_folder(config.runs, record.dataset, str(arch), record.split or 1)
    for checkpoint in (*record.checkpoints, *filter(None, [record.checkpoint])):
        yield Path(checkpoint).parent
