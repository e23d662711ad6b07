"""Checks a dataset: lists against disk, images, flow, leaks between training and test.

    python scripts/data/doctor.py --dataset NAME [--split 1] [--deep] [--json FILE]

Without --deep a few images of each video are opened, with it all, and stored flow is compared with
the frames. Exit code: 0 no errors, 1 errors, 2 could not check. docs/DATA.md explains each finding.
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

from datasets.doctor import Finding, examine, open_checked
from datasets.doctor.findings import count_severities, fold
from datasets.files import DataError, write_lines
from engine import UsageError
from engine.cli import data_places, data_script_parser
from engine.cli.flag_types import path, positive, regex

COULD_NOT_CHECK = 2


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = data_script_parser(__doc__)
    add = parser.add_argument
    add("-s", "--split", type=positive, help="number of the split to check (all)")
    add("--deep", action="store_true", help="read every image, not a few of each video")
    add("--json", type=path, metavar="FILE", help="write the report there as well")
    add(
        "--group", type=regex, metavar="REGEX", help="what in a name tells the group (as in UCF101)"
    )
    add("--most", type=positive, default=3, help="findings shown of a kind (%(default)s)")
    return parser.parse_args(argv)


def diagnose(args: argparse.Namespace) -> tuple[list[Finding], int]:
    """The findings, and the number of videos that they are about."""
    frames, settings = data_places(args)
    checked = open_checked(args.dataset, settings, frames, args.split)
    try:
        findings = examine(checked, args.deep, args.workers, args.group)
    except BrokenProcessPool:
        raise DataError("a worker process died; out of memory? Try fewer --workers") from None
    return findings, len(checked.folders)


def write_report(args: argparse.Namespace, videos: int, findings: list[Finding]) -> None:
    """Writes the findings to the --json file, if one was named."""
    if args.json is None:
        return
    content = {
        "dataset": args.dataset,
        "split": args.split,
        "deep": args.deep,
        "videos": videos,
        "counts": count_severities(findings),
        "findings": [finding.as_dict() for finding in findings],
    }
    write_lines(args.json.resolve(), [json.dumps(content, indent=2, ensure_ascii=False)])


def main(argv: list[str] | None = None, report: Callable[[str], None] = print) -> int:
    args = parse_args(argv)
    try:
        findings, videos = diagnose(args)
    except (DataError, UsageError, OSError) as error:
        write_report(args, 0, [Finding("error", "not-looked", "", str(error))])
        print(f"error: could not check: {error}", file=sys.stderr)
        return COULD_NOT_CHECK
    for line in fold(findings, args.most):
        report(line)
    numbers = count_severities(findings)
    found = ", ".join(f"{numbers[s]} {s}{'' if s == 'info' else 's'}" for s in numbers)
    report(f"{args.dataset}: {videos} videos{', all images read' if args.deep else ''}: {found}")
    write_report(args, videos, findings)
    return 1 if numbers["error"] else 0


if __name__ == "__main__":
    run(main)
