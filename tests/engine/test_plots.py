"""Pictures of names that look like mathematics: every drawing, with what no formula may be."""

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest

from engine.ablation.report import plot
from engine.analysis.attention import AttentionExample, draw_examples
from engine.plots import plot_confusion_matrix, plot_curves, plot_summary

# None of them is a valid formula but the last.
NAMES = ["le$_$ft", r"$\frac{$", "$", "$$", r"a\$b$_{$", r"$\undefined$", "_$x", "$a$"]


def confusion(name, path):
    plot_confusion_matrix(np.eye(2, dtype=int), [name, "right"], path)


def curves(name, path):
    plot_curves({name: {1: (1.0, 50.0), 2: (0.5, 75.0)}}, path)


def summary(name, path):
    top1 = {"value": 50.0, "interval": [25.0, 75.0]}
    runs = [{"name": f"{name} {name}+{name}", "splits": [{"top1": top1}]}] * 2
    classes = [{"class": name, "gain": gain} for gain in (-1.0, 1.0)]
    plot_summary({"runs": runs, "fusion": {"classes": classes}}, path)


def attention(name, path):
    frames, weights = np.zeros((2, 4, 4, 3), np.uint8), np.ones(2) / 3
    examples = [AttentionExample(0, predicted, frames, weights) for predicted in (0, 1)]
    draw_examples(examples, 2, [name, name], path)


def ablation(name, path):
    entry = {"splits": {"1": {"values": [50.0, 60.0]}}, "mean": 55.0}
    plot({"rows": [{"title": name, "paper": 50.0, "test": {"normal": {name: entry}}}]}, path)


@pytest.mark.parametrize("draw", [confusion, curves, summary, attention, ablation])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is(tmp_path, draw, name):
    path = tmp_path / "new" / "picture.png"
    draw(name, path)
    assert cv2.imread(str(path)) is not None
    assert [path.name for path in path.parent.iterdir()] == ["picture.png"]
    assert not plt.get_fignums()


def test_mathematics_would_be_an_error(tmp_path):
    """What the pictures are spared."""
    with plt.rc_context({"text.parse_math": True}), pytest.raises(ValueError, match="frac"):
        confusion(NAMES[1], tmp_path / "picture.png")
    plt.close("all")
