"""A trained network as a file that runs without this code: uint8 frames in, probabilities out.

    python scripts/export.py --run checkpoint/motions_rgb_tiny3D16f_bert10_FRMB_split1 --format onnx
    python scripts/export.py --checkpoint weights/i3d-rgb-kinetics400.pt --format pt2 aoti onnx

pt2 is a graph for PyTorch, aoti the same compiled for this machine, onnx is for onnxruntime. Each
file is compared with PyTorch on test videos and written only if its probabilities are the same to
1e-4. At the end all take turns, and a table says how long each takes a clip. docs/EXPORT.md
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

import torch
from tabulate import tabulate

from engine import UsageError, cli
from engine.applying.networks import load_network
from engine.config import DataConfig
from engine.exporting.clips import clips_to_check, video_clips
from engine.exporting.export import check_export, deploy, file_metadata, write_export
from engine.exporting.formats import FORMATS, trace
from engine.exporting.latency import measure_latency
from engine.files import write_json
from scripts.benchmarks.machine import describe_machine


def parse_args(argv: list[str] | None):
    parser = cli.new_parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--run", type=cli.path, metavar="DIR", help="a training's folder: its best model"
    )
    which.add_argument(
        "--checkpoint",
        type=cli.path,
        metavar="FILE",
        help="a checkpoint, a shared folder, or published weights with their classifier",
    )
    add = parser.add_argument
    add(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["pt2"],
        help="pt2: PyTorch; aoti: PyTorch, compiled for this machine; onnx (pt2)",
    )
    add(
        "--ten-crop",
        action="store_true",
        help="average over ten crops of each clip, as the tests do by default; ten times the work",
    )
    add(
        "--output",
        type=cli.path,
        metavar="FILE",
        help="the file to write, with one --format (beside the weights, named as they are)",
    )
    add(
        "--video",
        type=cli.path,
        nargs="+",
        metavar="FILE",
        help="videos to check on (the test list that the checkpoint names)",
    )
    add("--settings", type=cli.path, metavar="DIR", help="lists of the videos to check on")
    add("--frames", type=cli.path, metavar="DIR", help="frames, packs or videos to check on")
    add(
        "--repeats",
        type=cli.positive,
        default=5,
        help="turns of each format in the table of latencies, of which the median counts "
        "(%(default)s)",
    )
    add("--json", type=cli.path, metavar="FILE", help="also write what was found, as JSON")
    args = parser.parse_args(argv)
    args.format = list(dict.fromkeys(args.format))
    if args.output and len(args.format) > 1:
        raise UsageError("--output names one file; give one --format with it")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # network
    network = load_network(args.run or args.checkpoint)
    stem = network.path.name.partition(".")[0] if args.checkpoint else network.path.parent.name
    outputs = {
        name: args.output or network.path.parent / f"{stem}{FORMATS[name].suffix}"
        for name in args.format
    }
    for name, output in outputs.items():
        check_export(name, output)
    deployed = deploy(network, args.ten_crop)
    metadata = file_metadata(network, deployed)
    # clips
    size = deployed.sizes[0]
    if args.video:
        clips, what = video_clips(args.video, network.spec, size), f"{len(args.video)} video(s)"
    else:
        data = cli.fill(DataConfig, args)
        clips, what = clips_to_check(network.path, network.spec, data, size)
    print(f"{network.spec.name}, {len(network.classes)} classes; checked on {what}", flush=True)
    # files
    program = trace(deployed)
    files = []
    for name, output in outputs.items():
        file = write_export(program, deployed, metadata, name, output, clips)
        size = output.stat().st_size / 1e6
        print(f"{output}: {size:.1f} MB, agrees with PyTorch to {file.difference:.0e}")
        files.append(file)
    # latency
    rows = measure_latency(deployed, files, clips[:1], args.repeats)
    threads = torch.get_num_threads()
    print(f"a clip on {describe_machine(torch.device('cpu'), threads)}:")
    print(tabulate(rows, "keys", floatfmt=".1f"))
    if args.json:
        found = [{"format": f.format, "file": str(f.path), "differs": f.difference} for f in files]
        write_json(args.json, metadata | {"checked_on": what, "files": found, "latency": rows})
    return 0


if __name__ == "__main__":
    run(main)
