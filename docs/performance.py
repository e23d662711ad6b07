"""Draws docs/performance.png: time and memory by batch, frames, crop; loaders; tests by length.

python docs/performance.py DIR     # with batches, train_batches, frames, crops, length, loader.json

docs/PERFORMANCE.md names the command of `scripts/benchmark.py` that writes each of them (--json).
"""

import json
import re
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, RED = "#2b6cb0", "#c53030"
FAMILIES = {"resneXt": "ResNeXt101", "r2plus1d": "R(2+1)D-34", "I3D": "I3D"}


def main(folder: Path) -> None:
    def rows(name: str) -> list[dict]:
        (found,) = json.loads((folder / f"{name}.json").read_text())["benchmarks"].values()
        return [row for row in found["rows"] if "error" not in row]

    figure = Figure((12, 6.4), layout="constrained")
    axes = figure.subplots(2, 3).flat
    # passes
    draw(axes[0], rows("batches"), "batch", "forward, by batch")
    draw(axes[1], rows("train_batches"), "batch", "training step, by batch")
    frames = [row | {"frames": frames_of(row["arch"])} for row in rows("frames")]
    draw(axes[2], frames, "frames", "forward, by frames of a clip (batch 2)")
    draw(axes[3], rows("crops"), "crop", "forward, by side of the crop in pixels (batch 2)")
    # whole tests
    tests = rows("length")
    draw(axes[4], tests, "frames", "a whole test, by the video's frames", "s/video", "seconds")
    axes[4].set(xscale="log", yscale="log")
    # loaders
    loaders = [row for row in rows("loader") if row["view"] == "random" and row["workers"]]
    for crop, style in ((112, "-"), (224, "--")):
        for colour, source in zip("rgb", ("folders", "packed", "videos"), strict=True):
            own = [row for row in loaders if (row["source"], row["crop"]) == (source, crop)]
            label = f"{source}, {crop}"
            values = [row["workers"] for row in own], [row["clips/s"] for row in own]
            axes[5].plot(*values, f"{colour}.{style}", label=label)
    axes[5].set(title="loaders, by processes", ylabel="clips/s", ylim=(0, None), xticks=(1, 2))
    axes[5].legend(fontsize=7)
    for ax in axes:
        ax.grid(alpha=0.3)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)


def draw(
    axes: Axes, rows: list[dict], x: str, title: str, y: str = "ms/clip", label: str = "ms a clip"
) -> None:
    """Time on the left in blue, peak memory on the right in red; a line for each family."""
    memory = axes.twinx()
    for style, (word, name) in zip(("o-", "s--", "^:"), FAMILIES.items(), strict=True):
        own = [row for row in rows if word in row["arch"]]
        if own:
            values = [row[x] for row in own]
            axes.plot(values, [row[y] for row in own], style, color=BLUE, label=name)
            memory.plot(values, [row["peak MB"] for row in own], style, color=RED, alpha=0.7)
    others = [row for row in rows if not any(word in row["arch"] for word in FAMILIES)]
    if others:
        values = [row[x] for row in others]
        axes.plot(values, [row[y] for row in others], "o-", color=BLUE, label=others[0]["arch"])
        memory.plot(values, [row["peak MB"] for row in others], "o-", color=RED, alpha=0.7)
    axes.set_title(title, fontsize=10)
    axes.set(ylim=(0, None), xticks=sorted({row[x] for row in rows}))
    axes.set_ylabel(label, color=BLUE)
    memory.set_ylabel("peak MB of the process", color=RED)
    memory.set_ylim(0, None)
    axes.legend(fontsize=7)


def frames_of(arch: str) -> int:
    return int(re.search(r"(\d+)f", arch)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
