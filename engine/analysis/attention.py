"""What BERT's class token attends to over time: collected from test videos, chosen, and drawn."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from datasets import DataError
from engine import UsageError
from engine.metrics import predicted_classes
from engine.plots import save_figure
from engine.testing.stream import Stream

CORRECT, WRONG = "#2b6cb0", "#c53030"  # colours


@dataclass(frozen=True)
class AttentionExample:
    """A video: its clip's frames, one a token, uint8 (T', H, W, C), and attention (T',)."""

    label: int
    predicted: int
    frames: np.ndarray
    attention: np.ndarray

    @property
    def correct(self) -> bool:
        return self.predicted == self.label

    @property
    def colour(self) -> str:
        return CORRECT if self.correct else WRONG


@torch.inference_mode()
def collect_examples(stream: Stream) -> list[AttentionExample]:
    """Every test video's first view, and the class token's attention, mean over the heads.

    Raises UsageError for a network of two class tokens, DataError for a video that cannot be read.
    """
    spec, records, examples = stream.spec, stream.split.val, []
    videos = itertools.groupby(stream.read(range(len(records))), key=lambda clip: clip.row)
    bar = tqdm(videos, spec.name, len(records), unit="video", dynamic_ncols=True, disable=None)
    for record, (_, clips) in zip(records, bar, strict=True):
        first = next(clips)
        if first.error:
            raise DataError(first.error)
        clip = np.ascontiguousarray(first.views[0])  # (T, H, W, C)
        inputs = stream.prepare(torch.from_numpy(clip)[None].to(stream.device))
        weights = stream.model.attention(inputs)  # (1, heads, 1 + T', 1 + T')
        if isinstance(weights, dict):
            raise UsageError(f"{spec.name} has two class tokens; choose a network with one")
        attention = weights[0, :, 0, 1:].mean(dim=0).cpu().numpy()
        predicted = int(predicted_classes(stream.model(inputs).float().cpu().numpy())[0])
        if predicted < 0 or not np.isfinite(attention).all():
            raise DataError(f"{record.line}: {record.folder}: non-finite scores or attention")
        span = spec.frames // len(attention)  # a token's frame: the middle of its span
        frames = clip[span // 2 :: span][: len(attention)]
        examples.append(AttentionExample(record.label, predicted, frames, attention))
    return examples


def choose_examples(examples: Sequence[AttentionExample], number: int) -> list[AttentionExample]:
    """Up to `number` correct and `number` wrong ones, of different classes where possible."""
    chosen = []
    for correct in (True, False):
        own = [example for example in examples if example.correct == correct]
        labels = [example.label for example in own]
        ranks = [labels[:place].count(label) for place, label in enumerate(labels)]
        chosen += [own[place] for place in np.argsort(ranks, kind="stable")[:number]]
    return chosen


def draw_examples(
    examples: Sequence[AttentionExample], number: int, names: Sequence[str], path: Path
) -> None:
    """The picture: a row for each of some videos, and below the means over each class's videos."""
    chosen = choose_examples(examples, number)
    tokens, columns = len(examples[0].attention), min(4, len(names))
    lines = -(-len(names) // columns)
    heights = (1.15 * len(chosen), 1.5 * lines)
    figure = plt.figure(figsize=(11, sum(heights)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    # a frame for each token, and the attention as bars
    grid = top.add_gridspec(len(chosen), tokens + 3)
    highest = 1.05 * max(example.attention.max() for example in chosen)
    for row, example in enumerate(chosen):
        for token, frame in enumerate(example.frames):
            axes = top.add_subplot(grid[row, token])
            axes.imshow(frame if frame.shape[2] == 3 else frame[..., -1], "gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            if token == 0:
                title = f"{names[example.label]}, predicted {names[example.predicted]}"
                text = axes.set_title(title, fontsize=9, loc="left", color=example.colour)
                text.set_in_layout(False)  # wider than its frame
        axes = top.add_subplot(grid[row, tokens:])
        axes.bar(range(tokens), example.attention, color=example.colour, width=0.7)
        axes.set(xticks=[], ylim=(0, highest))
        axes.tick_params(labelsize=7)
    # means of each class
    panels = [*bottom.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat]
    bottom.supxlabel("token", fontsize=8)
    bottom.supylabel("mean attention", fontsize=8)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, (label, name) in zip(panels, enumerate(names), strict=False):
        for colour, word in ((CORRECT, "correct"), (WRONG, "wrong")):
            own = [e.attention for e in examples if (e.label, e.colour) == (label, colour)]
            if own:
                axes.plot(np.mean(own, 0), ".-", color=colour, label=f"{len(own)} {word}")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        if axes.lines:
            axes.legend(fontsize=7)
    save_figure(figure, path, dpi=75)
