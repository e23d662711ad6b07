"""Draws docs/performance.png: time and memory by batch, frames and crop, and of tests by length.

python docs/performance.py DIR     # with batches, train_batches, frames, crops and length.json

docs/PERFORMANCE.md names the command of `scripts/benchmark.py` that writes each of them (--json).
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.cli import new_parser

BLUE, RED = "#2b6cb0", "#c53030"
FAMILIES = {"resneXt": "ResNeXt101", "r2plus1d": "R(2+1)D-34", "I3D": "I3D"}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the JSON files")
    folder = parser.parse_args().folder

    def rows(name: str) -> list[dict]:
        (found,) = json.loads((folder / f"{name}.json").read_text())["benchmarks"].values()
        return [row for row in found["rows"] if "error" not in row]

    figure = Figure((12, 6.4), layout="constrained")
    *axes, unused = figure.subplots(2, 3).flat
    unused.axis("off")
    # passes
    draw(axes[0], rows("batches"), "batch", "forward, by batch")
    draw(axes[1], rows("train_batches"), "batch", "training step, by batch")
    frames = [row | {"frames": frames_of(row["arch"])} for row in rows("frames")]
    draw(axes[2], frames, "frames", "forward, by frames of a clip (batch 2)")
    draw(axes[3], rows("crops"), "crop", "forward, by side of the crop in pixels (batch 2)")
    # whole tests
    tests = rows("length")
    draw(axes[4], tests, "frames", "a whole test, by the video's frames", "s/video", "seconds")
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
    highest = max(row[y] for row in rows), max(row["peak MB"] for row in rows)
    axes.set(ylim=(0, 1.25 * highest[0]), xticks=sorted({row[x] for row in rows}))
    axes.set_ylabel(label, color=BLUE)
    memory.set_ylabel("peak MB of the process", color=RED)
    memory.set_ylim(0, 1.15 * highest[1])
    axes.legend(fontsize=7)


def frames_of(arch: str) -> int:
    return int(re.search(r"(\d+)f", arch)[1])


if __name__ == "__main__":
    run(main)
