"""Draws docs/overview.png: the network's stages, a clip, and the class token's attention over time.

python docs/overview.py          # needs the checkpoints of `make demo`
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
matplotlib.use("Agg")

import matplotlib.pyplot as plt

from datasets import create_dataset
from datasets.sampling import single_clip
from engine.checkpoint import BEST, load_checkpoint
from engine.data import frame_reader, normalization
from engine.files import ROOT, run_folder
from models import create_model, get_arch
from video_transforms import CenterCrop

ARCH = "flow_tiny3D16f_bert10_FRMB"
VIDEO = "up_then_down/val_000"
STAGES = (
    ("clip", "(N, C, T, H, W)"),
    ("3D CNN\nbackbone", "ResNeXt101, SlowFast,\nI3D, R(2+1)D"),
    ("feature\nreduction", "FRAB, FRMB\nor none"),
    ("temporal\ntokens", "spatial mean\n(N, T', D)"),
    ("temporal\nhead", "BERT, LSTM, average,\nconcatenation, non-local"),
    ("class", "fc_action\n(N, classes)"),
)


def clip_of(modality: str) -> np.ndarray:
    """The central clip of the video, uint8 (16, 56, 56, C), as the tiny networks see it."""
    spec = get_arch(f"{modality}_tiny3D16f_bert10_FRMB")
    frames = ROOT / "datasets/motions_frames"
    split = create_dataset("motions", 1, modality, ROOT / "datasets/settings", frames, ("val",))
    (record,) = [record for record in split.val if record.folder == VIDEO]
    (numbers,) = single_clip(record.count, spec.frames)
    return CenterCrop(spec.input.crop)(frame_reader(spec, split).read(record, numbers))


def attention_of(clip: np.ndarray) -> np.ndarray:
    """The class token's attention to each temporal token, mean over the heads, (8,)."""
    spec = get_arch(ARCH)
    checkpoint = run_folder(ROOT / "checkpoint/demo", "motions", ARCH, 1) / BEST
    names = (ROOT / "datasets/settings/motions/classes.txt").read_text().split()
    model = create_model(ARCH, len(names)).eval()
    load_checkpoint(checkpoint, spec, model, names)
    inputs = normalization(spec)(torch.from_numpy(np.ascontiguousarray(clip))[None])
    return model.attention(inputs)[0, :, 0, 1:].mean(dim=0).numpy()


def draw_stages(axes: plt.Axes) -> None:
    axes.set(xlim=(0, len(STAGES)), ylim=(0, 1))
    axes.axis("off")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#dbe9f6", "edgecolor": "#2b6cb0"}
    arrow = {"arrowstyle": "->", "color": "#2b6cb0", "lw": 1.6}
    for place, (name, note) in enumerate(STAGES):
        axes.text(place + 0.5, 0.66, name, ha="center", va="center", fontsize=12, bbox=box)
        axes.text(place + 0.5, 0.1, note, ha="center", va="center", fontsize=8.5, color="#444")
        if place:
            axes.annotate("", (place + 0.14, 0.66), (place - 0.16, 0.66), arrowprops=arrow)


def main() -> None:
    rgb, flow = clip_of("rgb"), clip_of("flow")
    figure = plt.figure(figsize=(11, 5.6), layout="constrained")
    grid = figure.add_gridspec(4, 8, height_ratios=(1.15, 1, 1, 1.1))
    draw_stages(figure.add_subplot(grid[0, :]))
    # every second frame
    for row, (label, pictures) in enumerate({"RGB": rgb, "flow, y": flow[..., 1]}.items(), 1):
        for token in range(8):
            axes = figure.add_subplot(grid[row, token], xticks=[], yticks=[])
            axes.imshow(pictures[2 * token], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"frame {2 * token + 1}" if row == 1 else "", fontsize=9)
            axes.set_ylabel("" if token else label, fontsize=10)
    # attention
    axes = figure.add_subplot(grid[3, :])
    axes.bar(range(8), attention_of(flow), color="#2b6cb0", width=0.7)
    axes.set(xlim=(-0.5, 7.5), xticks=range(8), ylabel="attention")
    axes.set_xlabel(f"temporal tokens of a video '{VIDEO.split('/')[0]}' ({ARCH})")
    figure.savefig(ROOT / "docs" / "overview.png", dpi=100)


if __name__ == "__main__":
    main()
