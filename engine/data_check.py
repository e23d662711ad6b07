"""Before a training, the doctor's quick part; behind it, whose data a checkpoint was trained on."""

import argparse
from pathlib import Path

from datasets import DataError
from datasets.doctor import check_lists, open_checked
from datasets.doctor.findings import LEAKS, summarize_kinds
from datasets.fingerprint import compare_fingerprints
from engine.files import resolve
from models import ArchSpec


def check_before_training(args: argparse.Namespace, spec: ArchSpec, frames: Path) -> None:
    """Checks the lists against the frame folders; raises DataError for errors, prints the rest.

    Videos on both sides of the split are printed, too: overfitting on purpose is no fault.
    """
    checked = open_checked(
        args.dataset,
        resolve(args.settings, "datasets/settings"),
        frames,
        args.split,
        (spec.modality,),
    )
    findings = check_lists(checked)
    errors = [f for f in findings if f.severity == "error" and f.kind not in LEAKS]
    command = f"python scripts/data/doctor.py --dataset {args.dataset} --split {args.split}"
    for option in ("settings", "frames"):
        if getattr(args, option):
            command += f" --{option} {getattr(args, option)}"
    if errors:
        first, *more = summarize_kinds(errors)
        raise DataError(
            "\n  ".join([first, *more, f"what mends it: {command}"])
            + "\n  --skip-doctor leaves this check out"
        )
    warnings = summarize_kinds([finding for finding in findings if finding.severity != "info"])
    for line in warnings:
        print(f"warning: {line}")
    if warnings:
        print(f"more of this: {command}")


def warn_of_other_data(content: dict, here: dict, what: object, parts: tuple[str, ...]) -> None:
    """Says what differs between the data that a checkpoint was trained on and these.

    Args:
        content: the checkpoint's; older files, and the reference's, do not say.
        here: the fingerprint of these data.
        what: the checkpoint's name.
        parts: the lists that matter.
    """
    there = content.get("fingerprint")
    try:
        found = compare_fingerprints(there, here, parts) if there else []
    except (AttributeError, KeyError, TypeError, ValueError):
        found = ["its fingerprint cannot be read"]
    for difference in found:
        print(f"warning: other data than {what} was made with: {difference}")
