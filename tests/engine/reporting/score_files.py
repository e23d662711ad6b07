"""Score files for the reports' tests: known answers, a JSON beside each, hostile names."""

import json
from pathlib import Path

import numpy as np

from engine.testing.score_files import write_scores

HOSTILE = '<script>alert("x")</script>'
CLASSES = ("kick", HOSTILE, "{{ 7 * 7 }}")


def logits(answers: list[tuple[int, float]], classes: int = 3) -> np.ndarray:
    """Scores whose softmax gives each answer's class its probability, the others equal shares."""
    rows = np.empty((len(answers), classes))
    for row, (label, share) in zip(rows, answers, strict=True):
        row[:] = np.log((1 - share) / max(1, classes - 1))
        row[label] = np.log(share)
    return rows.astype(np.float32)


def write_test(folder: Path, name: str, scores: np.ndarray, labels, **more) -> Path:
    """A score file and its JSON, into which `more` goes, but for videos, classes and streams."""
    path = folder / f"{name}.npz"
    videos = more.pop("videos", [f"video {n} 'a' & <b>" for n in range(len(labels))])
    classes, streams = more.pop("classes", CLASSES), more.pop("streams", None)
    write_scores(path, videos, np.array(labels), scores, classes, streams=streams)
    record = {"dataset": "toy", "split": 1, "clips": "multi", "crops": 10, "time_order": "normal"}
    path.with_suffix(".json").write_text(json.dumps(record | {"arch": name} | more))
    return path
