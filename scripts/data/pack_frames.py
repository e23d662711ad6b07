"""Frame folders -> one indexed file for each modality, that loads several times as fast.

    python scripts/data/pack_frames.py --dataset NAME --size 170x128  # for the 112-pixel networks
    python scripts/data/pack_frames.py --dataset NAME --size 340x256  # for the 224-pixel networks
    python scripts/data/pack_frames.py --dataset NAME --verify

Images of that size keep their very bytes, and clips from the pack are the folders' to the bit.
Others are resized as the loader resizes them and encoded again at --quality; --size original
keeps all as they are. The pack lies beside the frame folders, and training and tests find it
there by themselves. Stopped or killed, it resumes when it is run again.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

from tqdm import tqdm

from datasets.files import DataError, printable
from datasets.prepare.pack import Packing, pack
from datasets.sources.folders import MODALITIES, find_frame_folders
from datasets.sources.packed import damaged_videos, pack_name
from datasets.specs import find_spec
from engine.cli import data_places, data_script_parser
from engine.cli.flag_types import image_size, jpeg_quality, path


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = data_script_parser(__doc__)
    add = parser.add_argument
    add("--to", type=path, metavar="DIR", help="folder to write packs in (that of the frames)")
    add("--modality", choices=MODALITIES, help="images to pack (both, if they are there)")
    add(
        "--size",
        type=image_size,
        default=(170, 128),
        help="WIDTHxHEIGHT in pixels, or original (170x128)",
    )
    add(
        "--quality",
        type=jpeg_quality,
        default=95,
        help="JPEG quality of resized images (%(default)s)",
    )
    add("--leave-out-bad", action="store_true", help="finish without videos that are unreadable")
    add("--verify", action="store_true", help="only read finished packs back and compare checksums")
    return parser.parse_args(argv)


def pack_modality(packing: Packing, args: argparse.Namespace, report: Callable[[str], None]) -> int:
    """Packs one modality; returns the exit code."""
    metadata, failures = pack(packing, args.workers, args.leave_out_bad, _bar(packing.modality))
    for folder, reason in failures.items():
        report(f"not packed: {printable(folder, lines=False)}: {reason}")
    if metadata is None:
        report(
            f"{len(failures)} videos cannot be packed, the others are: fix them and run this "
            "again, or finish without them by --leave-out-bad"
        )
        return 1
    report(
        f"{packing.path}: {metadata.videos} videos, {metadata.images} images, "
        f"{metadata.size_bytes / 1e6:.1f} MB, read back and whole"
    )
    return 1 if failures else 0


def verify(path: Path, report: Callable[[str], None]) -> int:
    """Reads a pack back; returns the exit code."""
    bad = damaged_videos(path, _bar("verify"))
    for folder in bad:
        report(f"damaged: '{folder}' in {path}")
    report(f"{path}: " + (f"{len(bad)} videos are damaged; pack again" if bad else "whole"))
    return 1 if bad else 0


def _bar(title: str) -> Callable[[list], Iterable]:
    return partial(tqdm, desc=title, unit="video", dynamic_ncols=True, disable=None)


def main(argv: list[str] | None = None, report: Callable[[str], None] = print) -> int:
    args = parse_args(argv)
    frames, _ = data_places(args)
    target = args.to.resolve() if args.to else frames
    names = find_spec(args.dataset).names
    codes = []
    for modality in [args.modality] if args.modality else MODALITIES:
        if args.verify:
            path = target / pack_name(modality, args.size)
            if path.exists():
                codes.append(verify(path, report))
        elif args.modality or find_frame_folders(frames, names, [modality]):
            packing = Packing(frames, names, modality, args.size, args.quality, target)
            codes.append(pack_modality(packing, args, report))
    if not codes:
        what = f"packs {pack_name('*', args.size)}" if args.verify else "frame folders"
        raise DataError(f"no {what} in {target if args.verify else frames}; give --frames")
    return max(codes)


if __name__ == "__main__":
    run(main)
