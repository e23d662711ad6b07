"""Draws docs/overview.png: the network's stages, a clip, and the class token's attention over time.

python docs/overview.py          # needs the checkpoints of `make demo`
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

import torch
from matplotlib.figure import Figure

from engine.cli import new_parser
from engine.config import DataConfig, TestConfig
from engine.files import ROOT
from engine.testing.stream import build_stream

VIDEO = "up_then_down/val_000"
STAGES = {
    "clip": "(N, C, T, H, W)",
    "3D CNN\nbackbone": "ResNeXt101, SlowFast,\nI3D, R(2+1)D",
    "feature\nreduction": "FRAB, FRMB\nor none",
    "temporal\ntokens": "spatial mean\n(N, T', D)",
    "temporal\nhead": "BERT, LSTM, average,\nconcatenation, non-local",
    "class": "fc_action\n(N, classes)",
}


def main() -> None:
    new_parser(__doc__).parse_args()
    # the clips, and the attention to flow
    data = DataConfig("motions", workers=0, device="cpu")
    config = TestConfig(data, clips="single", ten_crop=False, runs=ROOT / "checkpoint/demo")
    streams = [build_stream(config, f"{m}_tiny3D16f_bert10_FRMB", None) for m in ("rgb", "flow")]
    row = [record.folder for record in streams[0].split.val].index(VIDEO)
    rgb, flow = (next(stream.read([row])).views[0] for stream in streams)
    inputs = streams[1].prepare(torch.from_numpy(flow)[None])
    attention = streams[1].model.attention(inputs)[0, :, 0, 1:].mean(dim=0).numpy(force=True)
    # the stages
    figure = Figure((11, 5.6), layout="constrained")
    grid = figure.add_gridspec(4, 8, height_ratios=(1.15, 1, 1, 1.1))
    axes = figure.add_subplot(grid[0, :], xlim=(0, len(STAGES)), ylim=(0, 1))
    axes.axis("off")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#dbe9f6", "edgecolor": "#2b6cb0"}
    arrow = {"arrowstyle": "->", "color": "#2b6cb0", "lw": 1.6}
    for place, (name, note) in enumerate(STAGES.items()):
        axes.text(place + 0.5, 0.66, name, ha="center", va="center", fontsize=12, bbox=box)
        axes.text(place + 0.5, 0.1, note, ha="center", va="center", fontsize=8.5, color="#444")
        if place:
            axes.annotate("", (place + 0.14, 0.66), (place - 0.16, 0.66), arrowprops=arrow)
    # the clips: every second frame
    for row, (label, pictures) in enumerate({"RGB": rgb, "flow, y": flow[..., 1]}.items(), 1):
        for token in range(8):
            axes = figure.add_subplot(grid[row, token], xticks=[], yticks=[])
            axes.imshow(pictures[2 * token], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"frame {2 * token + 1}" if row == 1 else "", fontsize=9)
            axes.set_ylabel("" if token else label, fontsize=10)
    # the attention
    axes = figure.add_subplot(grid[3, :], xlim=(-0.5, 7.5), xticks=range(8), ylabel="attention")
    axes.bar(range(8), attention, color="#2b6cb0", width=0.7)
    axes.set_xlabel(f"temporal tokens of a video '{VIDEO.split('/')[0]}' ({streams[1].spec.name})")
    figure.savefig(ROOT / "docs" / "overview.png", dpi=100)


if __name__ == "__main__":
    run(main)
