"""The card of a shared network, README.md, filled from the run's own records."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from datasets import DataError
from datasets.files import read_json
from datasets.fingerprint import describe
from engine.analysis.statistics import LEVEL
from engine.analysis.summary import METRICS, summarize_run
from engine.applying.networks import TrainedNetwork
from engine.testing.score_files import read_scores
from engine.testing.score_runs import group_runs
from engine.weights.sources import WEIGHT_SOURCES

UNRECORDED = "not recorded"


def recorded_scores(network: TrainedNetwork, results: Path) -> list[Path]:
    """The score files in `results` of the tests of a network's file that are newer than it."""
    found = []
    for summary in sorted(results.glob("*.json")):
        try:
            test = read_json(summary, dict)
        except DataError:
            continue  # not a test's
        scores, tested = test.get("scores"), test.get("checkpoint")
        if not isinstance(scores, str) or not isinstance(tested, str):
            continue
        here = summary.with_suffix(".npz")
        scores = Path(scores) if os.path.isfile(scores) else here
        same = os.path.realpath(tested) == os.path.realpath(network.path)
        if same and scores.is_file() and scores.stat().st_mtime >= network.path.stat().st_mtime:
            found.append(scores)
    return found


def make_card(network: TrainedNetwork, content: Mapping, scores: Sequence[Path]) -> str:
    """Markdown about a network.

    Args:
        content: of its checkpoint.
        scores: its tests' score files.
    """
    title = f"{network.spec.name} trained on {content.get('dataset', 'data that are not recorded')}"
    sections = [
        _front_matter(),
        f"# {title}",
        "A network that recognises actions in videos, trained with the code of *Late Temporal "
        "Modeling in 3D CNN Architectures with BERT for Action Recognition* (arXiv 2008.01232).",
        "## Use\n\n" + _use(network),
        "## Input\n\n" + _input(network),
        f"## Classes\n\n{len(network.classes)}, in `classes.txt`: "
        + ", ".join(network.classes[:20])
        + (", ..." if len(network.classes) > 20 else ""),
        "## Scores\n\n" + _scores(scores),
        "## Training\n\n" + _training(network, content),
        "## Licence\n\n" + _licence(content),
        "## Limits\n\n" + _limits(network, content),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter() -> str:
    """What the model hub reads; the licence is for the one who shares to say."""
    lines = ["library_name: pytorch", "pipeline_tag: video-classification"]
    return "\n".join(["---", *lines, "---"])


def _use(network: TrainedNetwork) -> str:
    is_rgb = network.spec.modality == "rgb"
    flag = "--checkpoint" if is_rgb else "--checkpoint RGB --checkpoint_flow"
    return (
        "With the code's repository, FOLDER being where these files lie:\n\n```\n"
        f"python scripts/predict.py VIDEO {flag} FOLDER\n"
        f"python two_stream_bert2.py --arch {network.spec.name} --weights FOLDER --dataset MINE\n"
        "```"
    )


def _input(network: TrainedNetwork) -> str:
    spec, made = network.spec, network.preparation
    expected = spec.input
    rate = f"{network.fps:g} frames a second" if network.fps else f"frame rate {UNRECORDED}"
    size = UNRECORDED if None in (made.width, made.height) else f"{made.width}x{made.height}"
    lines = [
        f"{spec.frames} consecutive frames, {rate}",
        f"pictures stretched to {size}, then to {expected.resize[0]}x{expected.resize[1]} pixels; "
        f"crops of {expected.crop}x{expected.crop}",
        f"values 0..{expected.value_range:g}, minus {expected.mean}, divided by {expected.std}",
    ]
    if spec.modality == "flow":
        engine = made.flow if network.recorded else f"an engine {UNRECORDED}"
        lines.append(
            f"optical flow by {engine}, -{made.bound:g}..{made.bound:g} pixels as 0..255, x and y"
        )
    return "\n".join(f"- {line}" for line in lines)


def _scores(files: Sequence[Path]) -> str:
    if not files:
        return "No test of this network is recorded."
    rows = []
    for run in group_runs([read_scores(path) for path in files]):
        for split in summarize_run(run)["splits"]:
            row = {"test": run.name, "videos": split["videos"]}
            for metric, title in METRICS.items():
                if metric in split:
                    value, ends = split[metric]["value"], split[metric].get("interval")
                    between = f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else ""
                    row[f"{title} (%)"] = f"{value:.2f}{between}"
            rows.append(row)
    note = f"In brackets {LEVEL:.0%} bootstrap intervals over the test videos."
    return f"{tabulate(rows, 'keys', 'github')}\n\n{note}"


def _training(network: TrainedNetwork, content: Mapping) -> str:
    data = content.get("fingerprint")
    args = network.path.parent / "args.json"
    try:
        command = read_json(args, dict).get("command", UNRECORDED)
    except DataError:
        command = UNRECORDED
    lines = [
        f"data: {describe(data) if data else UNRECORDED}",
        f"initial weights: {content.get('initial_weights', UNRECORDED)}",
        f"epochs done: {content.get('epoch', UNRECORDED)}",
        f"versions: {content.get('versions', UNRECORDED)}",
    ]
    listed = "\n".join(f"- {line}" for line in lines)
    return f"{listed}\n\n```\n{command}\n```"


def _licence(content: Mapping) -> str:
    name = content.get("initial_weights")
    source = next((s for s in WEIGHT_SOURCES if s.name == name), None)
    if source is not None:
        first = f"It was trained from `{name}` ({source.data}), whose licence is: {source.licence}."
    elif name == "none":
        first = "It was trained from scratch: no others' weights are in it."
    else:
        first = f"It was trained from weights whose licence is {UNRECORDED} ({name or 'no name'})."
    return f"{first} The licence of the training data is not recorded; the code is MIT."


def _limits(network: TrainedNetwork, content: Mapping) -> str:
    lines = [
        "It answers with one of its classes, also for a video that shows none of them.",
        "The scores are of the videos named above; other cameras, places and people may score "
        "lower. Videos of another frame rate show it another speed.",
        "The best epoch is chosen on the list that is tested, as the reference implementation "
        "does, unless a part of the training list was held out: such scores are optimistic.",
    ]
    if network.spec.modality == "flow":
        lines.append("It sees optical flow; that of another engine than its training's is another.")
    if not network.recorded:
        lines.append("Its file does not say how its frames were extracted.")
    return "\n".join(f"- {line}" for line in lines)
