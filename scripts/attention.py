"""What BERT's class token attends to over time, in videos that are called right and wrong.

    python scripts/attention.py -d motions -a flow_tiny3D16f_bert10_FRMB --picture attention.png

Of each test video the central clip's central crop is classified. The picture shows some videos of
both kinds, a frame for each temporal token, and the class token's attention to the tokens, mean
over the heads; below, its mean over all videos of a class.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets import DataError
from datasets.clips import VideoDataset
from datasets.sampling import single_clip
from engine import UsageError
from engine.cli import data_parent, run
from engine.data import Stream, build_stream, frame_reader
from engine.files import resolve
from engine.flag_types import path, positive
from engine.plots import save_figure
from video_transforms import CenterCrop

RIGHT, WRONG = "#2b6cb0", "#c53030"


@dataclass(frozen=True)
class Case:
    """A video: its clip's frames, one a token, uint8 (T', H, W, C), and attention (T',)."""

    folder: str
    label: int
    called: int
    frames: np.ndarray
    attention: np.ndarray

    @property
    def colour(self) -> str:
        return RIGHT if self.called == self.label else WRONG


@torch.inference_mode()
def look(stream: Stream, workers: int, scaled: bool) -> list[Case]:
    """Every test video's case; raises DataError for a video that cannot be read."""
    spec, records = stream.spec, stream.split.val
    reader, crop, cases = frame_reader(spec, stream.split, scaled), CenterCrop(spec.input.crop), []
    loader = DataLoader(
        VideoDataset(records, reader, spec.frames, single_clip),
        batch_size=None,
        num_workers=workers,
    )
    bar = tqdm(loader, spec.name, unit="video", dynamic_ncols=True, disable=None)
    for record, (images, clips, error) in zip(records, bar, strict=True):
        if error:
            raise DataError(error)
        clip = np.ascontiguousarray(crop(images.numpy()[clips[0].numpy()]))
        inputs = stream.normalize(torch.from_numpy(clip)[None].to(stream.device))
        weights = stream.model.attention(inputs)
        if isinstance(weights, dict):
            raise UsageError(f"{spec.name} has two class tokens; choose a network with one")
        attention = weights[0, :, 0, 1:].mean(dim=0).cpu().numpy()
        called = int(stream.model(inputs).argmax())
        span = spec.frames // len(attention)  # a token's frame: the middle of its span
        frames = clip[span // 2 :: span][: len(attention)]
        cases.append(Case(record.folder, record.label, called, frames, attention))
    return cases


def choose(cases: list[Case], number: int) -> list[Case]:
    """Up to `number` right and `number` wrong videos, of different classes where possible."""
    chosen = []
    for is_right in (True, False):
        own = [case for case in cases if (case.called == case.label) == is_right]
        seen, ranks = Counter(), []
        for case in own:
            ranks.append(seen[case.label])
            seen[case.label] += 1
        chosen += [own[place] for place in np.argsort(ranks, kind="stable")[:number]]
    return chosen


def draw(cases: list[Case], chosen: list[Case], names: list[str], path: Path) -> None:
    """The picture: a row for each chosen video, and below the means of each class."""
    tokens = len(cases[0].attention)
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = plt.figure(figsize=(11, 1.15 * len(chosen) + 1.5 * lines), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15 * len(chosen), 1.5 * lines))
    grid = top.add_gridspec(len(chosen), tokens + 3)
    highest = 1.05 * max(case.attention.max() for case in chosen)
    for row, case in enumerate(chosen):
        for token, frame in enumerate(case.frames):
            axes = top.add_subplot(grid[row, token])
            axes.imshow(frame if frame.shape[2] == 3 else frame[..., -1], "gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            if token == 0:
                title = f"{names[case.label]}, called {names[case.called]}"
                text = axes.set_title(title, fontsize=9, loc="left", color=case.colour)
                text.set_in_layout(False)  # wider than its frame
        axes = top.add_subplot(grid[row, tokens:])
        axes.bar(range(tokens), case.attention, color=case.colour, width=0.7)
        axes.set(xticks=[], ylim=(0, highest))
        axes.tick_params(labelsize=7)
    panels = [*bottom.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat]
    bottom.supxlabel("token", fontsize=8)
    bottom.supylabel("mean attention", fontsize=8)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, (label, name) in zip(panels, enumerate(names), strict=False):
        for colour, word in ((RIGHT, "right"), (WRONG, "wrong")):
            own = [c.attention for c in cases if c.label == label and c.colour == colour]
            if own:
                axes.plot(np.mean(own, 0), ".-", color=colour, label=f"{len(own)} {word}")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    save_figure(figure, path, dpi=75)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        parents=[data_parent()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", "-a", required=True, help="with a BERT head of one class token")
    parser.add_argument("--checkpoint", type=path, metavar="FILE", help="(the run's best model)")
    parser.add_argument("--runs", type=path, metavar="DIR", help="training's runs (checkpoint)")
    parser.add_argument("--videos", type=positive, default=3, help="of each kind (%(default)s)")
    parser.add_argument("--picture", type=path, metavar="FILE.png", help="(results/attention.png)")
    args = parser.parse_args(argv)
    stream = build_stream(args, args.arch, args.checkpoint)
    if not stream.spec.class_token:
        raise UsageError(f"{stream.spec.name} has no class token")
    cases = look(stream, args.workers, args.scaled_decoding)
    chosen = choose(cases, args.videos)
    right = sum(case.called == case.label for case in cases)
    picture = resolve(args.picture, "results/attention.png")
    draw(cases, chosen, stream.split.class_names, picture)
    print(f"{right} of {len(cases)} videos right\n{picture}")
    return 0


if __name__ == "__main__":
    run(main)
