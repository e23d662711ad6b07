"""The whole way in a few minutes: make `motions`, train both streams, test them and their fusion.

    python scripts/demo.py

Every step is one of the project's own commands, printed before it runs. Run again, it takes up
where it was, and finds most of the work done.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.checkpoint import LAST
from engine.files import run_folder
from engine.flag_types import positive

DATASET, TRAIN_VIDEOS = "motions", 320
RUNS = ROOT / "checkpoint" / "demo"  # apart from what a user trains on the same data
ARCHS = {"rgb": "rgb_tiny3D16f_bert10_FRMB", "flow": "flow_tiny3D16f_bert10_FRMB"}
RECIPE = "--batch-size 16 --iter-size 1 --lr 2e-3 --scheduler cosine --warmup-epochs 2".split()


def command(script: str, *args: object) -> None:
    """Runs one of the scripts, shown as it would be typed; stops the demo if it fails."""
    line = [script, *map(str, args)]
    print(f"\n$ python {shlex.join(line)}", flush=True)
    finished = subprocess.run([sys.executable, *line], cwd=ROOT)
    if finished.returncode != 0:
        sys.exit(finished.returncode)


def train(modality: str, epochs: int) -> None:
    """Trains a stream, or goes on with one that was begun."""
    folder = run_folder(RUNS, DATASET, ARCHS[modality], 1)
    begun = ["-c", "last"] if (folder / LAST).exists() else []
    data = ["--dataset", DATASET, "--arch", ARCHS[modality], "--epochs", epochs]
    data += ["--output", RUNS.relative_to(ROOT)]
    command("two_stream_bert2.py", *data, *RECIPE, *begun)


def print_table(seconds: float) -> float:
    """Prints what came out and where it lies; returns the fused top-1 in percent."""
    results = ROOT / "results"
    stem = f"{DATASET}_{'+'.join(ARCHS.values())}_split1_multi_clip_ten_crop"
    summary = json.loads((results / f"{stem}.json").read_text())
    print(f"\n{'stream':<8}{'top-1':>9}    (8 classes, chance 12.50 %)")
    for modality, arch in ARCHS.items():
        print(f"{modality:<8}{summary['streams'][arch]['top1']:>7.2f} %")
    print(f"{'fused':<8}{summary['top1']:>7.2f} %")
    for modality, arch in ARCHS.items():
        folder = run_folder(RUNS, DATASET, arch, 1).relative_to(ROOT)
        print(f"{modality} curves and checkpoints: {folder}/curves.png, model_best.pth.tar")
    print(f"confusion matrix: results/{stem}.png")
    print(f"all curves: tensorboard --logdir checkpoint\n{seconds:.0f} s")
    return summary["top1"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rgb-epochs", type=positive, default=30, help="(%(default)s)")
    parser.add_argument("--flow-epochs", type=positive, default=14, help="(%(default)s)")
    parser.add_argument("--at-least", type=float, help="fused top-1 (%%) below which it fails")
    args = parser.parse_args()
    start = time.perf_counter()
    train_list = ROOT / "datasets/settings" / DATASET / "train_flow_split1.txt"
    if not train_list.exists() or len(train_list.read_text().splitlines()) != TRAIN_VIDEOS:
        command("scripts/data/make_motions.py")
    train("rgb", args.rgb_epochs)
    train("flow", args.flow_epochs)
    runs = ["--runs", RUNS.relative_to(ROOT)]
    streams = ["--arch_rgb", ARCHS["rgb"], "--arch_flow", ARCHS["flow"]]
    command(
        "scripts/eval/combined_demo.py", "--dataset", DATASET, *streams, *runs, "--batch-size", 10
    )
    top1 = print_table(time.perf_counter() - start)
    if args.at_least is not None and top1 < args.at_least:
        print(f"error: fused top-1 {top1:.2f} % is below {args.at_least} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
