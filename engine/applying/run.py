"""Trained networks applied to whatever videos a user names: answers, timelines, live lines."""

import csv
import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from datasets.files import DataError, check_writable, write_lines
from engine import UsageError
from engine.applying.footage import Footage
from engine.applying.live import watch
from engine.applying.predictor import Predictor, load_predictor
from engine.applying.sliding import slide
from engine.applying.sources import VideoSource, find_sources
from engine.applying.timeline import Timeline, make_timeline
from engine.applying.timeline_files import (
    plot_timeline,
    write_overlay,
    write_subtitles,
    write_timeline_csv,
    write_timeline_json,
)
from engine.config import PredictConfig
from engine.files import resolve, write_json


@dataclass(frozen=True)
class Answer:
    """A video's most probable classes, and what a user should know of it.

    Attributes:
        top: (class, probability), the most probable first.
        frames, seconds: that were read, after any resampling.
        probabilities: float64 (classes,).
    """

    source: str
    top: list[tuple[str, float]]
    frames: int
    seconds: float
    notes: list[str]
    probabilities: np.ndarray


def run_predictions(config: PredictConfig) -> int:
    """Applies the networks to all sources and writes what was asked for; the exit code is 1 if a
    source could not be read."""
    sources, faults = find_sources(config.sources)
    is_live = config.live or any(source.kind == "camera" for source in sources)
    _check(config, sources, is_live)
    ten_crop = config.ten_crop if config.ten_crop is not None else not (config.timeline or is_live)
    predictor = load_predictor(
        config.network,
        config.network_flow,
        config.computing,
        config.device,
        config.clips,
        ten_crop,
        config.batch_size or (1 if is_live and not ten_crop else None),
    )
    if config.rules.background not in (None, *predictor.classes):
        raise UsageError(
            f"--background '{config.rules.background}' is no class; there are "
            + ", ".join(predictor.classes[:20])
        )
    fps = config.fps or predictor.fps
    print(describe_predictor(predictor, fps), flush=True)
    # source after source
    answers, stems = [], _stems(sources)
    for source in tqdm(
        sources, unit="video", disable=None if len(sources) > 1 and not is_live else True
    ):
        footage = Footage(source, fps, deadline=config.deadline)
        try:
            if is_live:
                _print_live(predictor, footage)
            elif config.timeline:
                _write_timeline(config, predictor, footage, stems[source])
            else:
                answers.append(classify(predictor, footage, config.top))
                tqdm.write(describe_answer(answers[-1]))
        except (DataError, UsageError) as error:
            faults.append(str(error))
    # all of them
    if answers:
        _write_answers(config, predictor, answers)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _check(config: PredictConfig, sources: list[VideoSource], is_live: bool) -> None:
    """Raises UsageError or OSError, before any work, for what cannot be done or written."""
    if is_live and (config.timeline or len(sources) > 1):
        raise UsageError("a live source is watched alone, without --timeline")
    if config.overlay is not None and not (config.timeline and len(sources) == 1):
        raise UsageError("--overlay is for --timeline of one video")
    if config.timeline and (config.json or config.csv):
        raise UsageError("--timeline writes JSON and CSV of its own, into --output DIR")
    for path in (config.json, config.csv, config.overlay):
        if path is not None:
            check_writable(path.resolve().parent)


def describe_predictor(predictor: Predictor, fps: float | None) -> str:
    """What is applied, for people."""
    names = " and ".join(applied.network.spec.name for applied in predictor.networks)
    lines = [f"{names}: {len(predictor.classes)} classes"]
    if fps is None:
        lines.append(
            "note: the file does not say the frame rate of its training's videos; frames are taken "
            "as they come (--fps N resamples them)"
        )
    for applied in predictor.networks:
        network = applied.network
        if network.spec.modality == "flow":
            how = network.preparation
            said = "" if network.recorded else ", which the file does not say"
            lines.append(f"flow: {how.flow}, -{how.bound:g}..{how.bound:g} pixels{said}")
    return "\n".join(lines)


def classify(predictor: Predictor, footage: Footage, top: int) -> Answer:
    """The classes of one video; raises DataError or UsageError, naming it."""
    count = 0

    def frames():
        nonlocal count
        for _, picture in footage:
            count += 1
            yield picture

    probabilities = predictor.predict(frames(), footage.source.name)
    order = np.argsort(-probabilities, kind="stable")[:top]
    best = [(predictor.classes[n], float(probabilities[n])) for n in order]
    seconds = count / footage.rate
    return Answer(footage.source.name, best, count, seconds, footage.notes, probabilities)


def describe_answer(found: Answer) -> str:
    """A video's table, for people."""
    rows = [(name, f"{probability:.4f}") for name, probability in found.top]
    head = f"\n{found.source}: {found.frames} frames, {found.seconds:.1f} s"
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join(
        [head, *notes, tabulate(rows, ("class", "probability"), disable_numparse=True)]
    )


def _write_answers(config: PredictConfig, predictor: Predictor, answers: list[Answer]) -> None:
    if config.json is not None:
        content = {
            "networks": [a.network.spec.name for a in predictor.networks],
            "files": [str(a.network.path) for a in predictor.networks],
            "clips": predictor.clips,
            "ten_crop": predictor.ten_crop,
            "classes": list(predictor.classes),
            "videos": [
                {
                    "source": a.source,
                    "frames": a.frames,
                    "seconds": round(a.seconds, 3),
                    "notes": a.notes,
                    "top": [{"class": name, "probability": p} for name, p in a.top],
                    "probabilities": a.probabilities.tolist(),
                }
                for a in answers
            ],
        }
        write_json(config.json, content)
    if config.csv is not None:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["source", "rank", "class", "probability"])
        for a in answers:
            rows = enumerate(a.top, 1)
            writer.writerows((a.source, rank, name, f"{p:.6f}") for rank, (name, p) in rows)
        write_lines(config.csv, out.getvalue().splitlines())


def _write_timeline(
    config: PredictConfig, predictor: Predictor, footage: Footage, stem: str
) -> None:
    """Slides over one video, prints its segments, and writes the timeline's files."""
    folder = resolve(config.output, "results/timelines")
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    windows, probabilities = slide(
        predictor, footage, config.rules.step, folder / f"{stem}.progress.jsonl"
    )
    timeline = make_timeline(windows, probabilities, predictor.classes, config.rules)
    name, base = footage.source.name, folder / stem
    settings = {
        "networks": [a.network.spec.name for a in predictor.networks],
        "files": [str(a.network.path) for a in predictor.networks],
        "fps": footage.rate,
        "notes": footage.notes,
    }
    write_timeline_json(base.with_suffix(".json"), name, timeline, config.rules, settings)
    write_timeline_csv(base.with_suffix(".csv"), timeline)
    write_subtitles(base.with_suffix(".srt"), timeline)
    plot_timeline(base.with_suffix(".png"), Path(name).name, timeline, footage)
    if config.overlay is not None:
        write_overlay(config.overlay, timeline, replace(footage, fps=None, start=0.0, notes=[]))
    tqdm.write(describe_timeline(name, timeline, footage.notes))
    tqdm.write(f"{base}.json, .csv, .srt, .png")


def describe_timeline(name: str, timeline: Timeline, notes: list[str]) -> str:
    """A timeline's segments, for people."""
    rows = [
        (f"{s.start:.1f}", f"{s.end:.1f}", timeline.classes[s.label], f"{s.score:.2f}")
        for s in timeline.segments
    ]
    table = tabulate(rows, ("from (s)", "to (s)", "action", "probability"), disable_numparse=True)
    notes = [f"note: {note}" for note in notes]
    return "\n".join(
        [f"\n{name}: {timeline.bounds[-1]:.1f} s", *notes, table if rows else "nothing"]
    )


def _print_live(predictor: Predictor, footage: Footage) -> None:
    for found in watch(predictor, footage):
        label = int(found.probabilities.argmax())
        dropped = f", {found.dropped} frames left out" if found.dropped else ""
        print(
            f"{found.seconds:8.1f} s  {predictor.classes[label]} {found.probabilities[label]:.2f}  "
            f"(lag {found.lag:.1f} s{dropped})",
            flush=True,
        )


def _stems(sources: list[VideoSource]) -> dict[VideoSource, str]:
    """A name for each source's files, each another."""
    stems: dict[VideoSource, str] = {}
    for source in sources:
        stem, number = source.stem, 2
        while stem in stems.values():
            stem, number = f"{source.stem}_{number}", number + 1
        stems[source] = stem
    return stems
