"""Checks a dataset: lists against disk, images, flow, leaks between training and test.

    python scripts/data/doctor.py --dataset NAME [--split 1] [--deep] [--json FILE]

Without --deep a few images of each video are opened, with it all, and stored flow is compared with
the frames. Exit code: 0 no errors, 1 errors, 2 could not look. docs/DATA.md explains each finding.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.doctor import Finding, examine, open_case
from datasets.doctor.findings import count, fold
from datasets.lists import DataError, write_lines
from engine.cli import USER_ERRORS, run
from engine.files import resolve
from engine.flag_types import positive, regex

COULD_NOT_LOOK = 2


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", "-d", required=True, help="its name")
    parser.add_argument("-s", "--split", type=positive, help="split number (default: all)")
    parser.add_argument("--frames", type=Path, help="default: datasets/<dataset>_frames")
    parser.add_argument("--settings", type=Path, help="default: datasets/settings")
    parser.add_argument("--deep", action="store_true", help="look at every image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument(
        "--group",
        type=regex,
        metavar="REGEX",
        help="what in a name tells the group (default: as in UCF101, HMDB51, ...)",
    )
    parser.add_argument("--most", type=positive, default=3, help="findings shown of a kind (3)")
    parser.add_argument("-j", "--workers", type=positive, default=2, help="(%(default)s)")
    return parser.parse_args(argv)


def diagnose(args: argparse.Namespace) -> tuple[list[Finding], int]:
    """The findings, and the number of videos that they are about."""
    case = open_case(
        args.dataset,
        resolve(args.settings, "datasets/settings"),
        resolve(args.frames, f"datasets/{args.dataset}_frames"),
        args.split,
    )

    def bar(looks: Iterable, number: int) -> Iterable:
        return tqdm(looks, "videos", number, unit="video", dynamic_ncols=True, disable=None)

    try:
        findings = examine(case, args.deep, args.workers, bar, args.group)
    except BrokenProcessPool:
        raise DataError("a worker process died; out of memory? Try fewer --workers") from None
    return findings, len(case.folders)


def write_report(path: Path, args: argparse.Namespace, videos: int, findings: list) -> None:
    content = {
        "dataset": args.dataset,
        "split": args.split,
        "deep": args.deep,
        "videos": videos,
        "counts": count(findings),
        "findings": [asdict(finding) for finding in findings],
    }
    write_lines(path, [json.dumps(content, indent=2, ensure_ascii=False)])


def main(argv: list[str] | None = None, report: Callable[[str], None] = print) -> int:
    args = parse_args(argv)
    report_file = resolve(args.json, "") if args.json else None
    try:
        findings, videos = diagnose(args)
    except USER_ERRORS as error:
        if report_file:
            write_report(report_file, args, 0, [Finding("error", "not-looked", "", str(error))])
        print(f"error: could not look: {error}", file=sys.stderr)
        return COULD_NOT_LOOK
    for line in fold(findings, args.most):
        report(line)
    numbers = count(findings)
    found = ", ".join(f"{numbers[s]} {s}{'' if s == 'info' else 's'}" for s in numbers)
    report(f"{args.dataset}: {videos} videos{' looked at deeply' if args.deep else ''}: {found}")
    if report_file:
        write_report(report_file, args, videos, findings)
    return 1 if numbers["error"] else 0


if __name__ == "__main__":
    run(main)
