"""The main job in a few minutes: make `motions`, train RGB and flow, test both and their fusion.

    python scripts/demo.py          # or `make demo`, which installs the requirements first

Every step is one of the project's own commands, printed before it runs. Interrupted and run again,
it resumes, and skips what is finished.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from tabulate import tabulate

from engine.checkpoint import LAST
from engine.cli import new_parser
from engine.cli.flag_types import positive
from engine.files import ROOT, run_folder

DATASET, TRAIN_VIDEOS = "motions", 320
RUNS = "checkpoint/demo"  # apart from what a user trains on the same data
STREAMS = {"rgb": "rgb_tiny3D16f_bert10_FRMB", "flow": "flow_tiny3D16f_bert10_FRMB"}
FLAGS = "--batch-size 16 --iter-size 1 --lr 2e-3 --scheduler cosine --warmup-epochs 2".split()


def command(script: str, *args: object) -> None:
    """Runs one of the scripts, shown as it would be typed; stops the demo if it fails."""
    line = [script, *map(str, args)]
    print(f"\n$ python {shlex.join(line)}", flush=True)
    if code := subprocess.run([sys.executable, *line], cwd=ROOT).returncode:
        sys.exit(code)


def train(modality: str, epochs: int) -> None:
    """Trains a stream, or resumes its training."""
    arch = STREAMS[modality]
    begun = (run_folder(ROOT / RUNS, DATASET, arch, 1) / LAST).exists()
    flags = ["--dataset", DATASET, "--arch", arch, "--epochs", epochs, "--output", RUNS, *FLAGS]
    command("two_stream_bert2.py", *flags, *(["-c", "last"] if begun else []))


def print_results(seconds: float) -> float:
    """Prints the accuracies and where the files lie; returns the fused top-1 in percent."""
    stem = f"results/{DATASET}_{'+'.join(STREAMS.values())}_split1_multi_clip_ten_crop"
    summary = json.loads((ROOT / f"{stem}.json").read_text())
    rows = [(name, summary["streams"][arch]["top1"]) for name, arch in STREAMS.items()]
    rows.append(("fused", summary["top1"]))
    print(f"\n{tabulate(rows, ['stream', 'top-1 (%)'], floatfmt='.2f')}")
    print("8 classes: guessing gives 12.50 %")
    for modality, arch in STREAMS.items():
        folder = run_folder(ROOT / RUNS, DATASET, arch, 1).relative_to(ROOT)
        print(f"{modality} curves and checkpoints: {folder}/curves.png, model_best.pth.tar")
    print(f"confusion matrix: {stem}.png")
    print(f"report, to open in a browser: {stem}.html")
    print("these commands, and those above, need in each terminal: source .venv/bin/activate")
    print(f"all curves: tensorboard --logdir checkpoint\n{seconds:.0f} s")
    return summary["top1"]


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--rgb-epochs", type=positive, default=30, help="epochs of the RGB network (%(default)s)"
    )
    parser.add_argument(
        "--flow-epochs", type=positive, default=14, help="epochs of the flow network (%(default)s)"
    )
    parser.add_argument("--at-least", type=float, help="fused top-1 (%%) below which it fails")
    args = parser.parse_args()
    start = time.perf_counter()
    train_list = ROOT / "datasets/settings" / DATASET / "train_flow_split1.txt"
    if not train_list.exists() or len(train_list.read_text().splitlines()) != TRAIN_VIDEOS:
        command("scripts/data/make_motions.py")
    train("rgb", args.rgb_epochs)
    train("flow", args.flow_epochs)
    archs = ["--arch_rgb", STREAMS["rgb"], "--arch_flow", STREAMS["flow"]]
    flags = ["--dataset", DATASET, *archs, "--runs", RUNS, "--batch-size", 10, "--html"]
    command("scripts/eval/combined_demo.py", *flags)
    top1 = print_results(time.perf_counter() - start)
    if args.at_least is not None and top1 < args.at_least:
        print(f"error: fused top-1 {top1:.2f} % is below {args.at_least} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run(main)
