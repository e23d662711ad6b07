"""What the doctor found: one fault of one video (or of the whole dataset), and what fixes it."""

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from datasets.files import printable
from datasets.records import VideoRecord

SEVERITIES = ("error", "warning", "info")
# Errors that make a test's numbers wrong, though nothing fails: one may want to overfit.
LEAKS = ("train-and-test", "group-split", "duplicate")


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        severity: "error" (numbers would be wrong, or reading would fail), "warning" (probably
            not what you want), "info" (a convention that was recognised).
        kind: a short name, the same for all faults of the kind; docs/DATA.md explains each.
        video: its frame folder, "" where it is about the whole dataset.
        message: what is wrong, with list line or file.
        fix: the command that fixes it, or what to do.
    """

    severity: str
    kind: str
    video: str
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as the JSON report spells it, where `fix` is called `mend`."""
        values = {key: printable(value) for key, value in asdict(self).items()}
        return {"mend" if key == "fix" else key: value for key, value in values.items()}


@dataclass(frozen=True)
class Fixes:
    """Spells the commands that fix a dataset."""

    dataset: str
    settings: Path
    frames: Path

    @property
    def prepare(self) -> str:
        """Extracts what is not finished, and writes the lists from what is there."""
        return (
            f"python scripts/data/prepare_videos.py VIDEOS --dataset {shlex.quote(self.dataset)} "
            f"--settings {shlex.quote(str(self.settings))} --frames {shlex.quote(str(self.frames))}"
            " (and the flags of the first time)"
        )

    def extract_again(self, video: str) -> str:
        return f"rm -r {shlex.quote(str(self.frames / video))} && {self.prepare}"

    def set_count(self, record: VideoRecord, count: int) -> str:
        """Corrects a list line in place."""
        return self._substitute(record, f"{record.folder} {count} {record.label}")

    def drop_line(self, record: VideoRecord) -> str:
        """Empties a list line; the numbers of the others stay."""
        return self._substitute(record, "")

    @staticmethod
    def _substitute(record: VideoRecord, text: str) -> str:
        file, _, number = record.line.rpartition(":")
        escaped = text.replace("\\", "\\\\").replace("&", "\\&").replace("|", "\\|")
        return f"sed -i {shlex.quote(f'{number}s|.*|{escaped}|')} {shlex.quote(file)}"


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; each once, however many lists showed it."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda f: (SEVERITIES.index(f.severity), f.kind, f.video))


def count_severities(findings: Iterable[Finding]) -> dict[str, int]:
    """Severity -> number of findings."""
    numbers = Counter(finding.severity for finding in findings)
    return {severity: numbers[severity] for severity in SEVERITIES}


def _by_kind(findings: Iterable[Finding]) -> list[list[Finding]]:
    """The findings of each severity and kind, the worst first."""
    return [list(group) for _, group in groupby(ordered(findings), attrgetter("severity", "kind"))]


def fold(findings: Iterable[Finding], most: int) -> list[str]:
    """Lines for people: of each kind the first few findings, and how many more there are."""
    lines = []
    for found in _by_kind(findings):
        videos = len({finding.video for finding in found} - {""})
        number = f" ({videos} videos)" if videos > 1 else ""
        lines.append(f"{found[0].severity}: {found[0].kind}{number}")
        for finding in found[:most]:
            lines.append(f"  {finding.message}")
            if finding.fix:
                lines.append(f"    fix: {finding.fix}")
        if len(found) > most:
            lines.append(f"  ... and {len(found) - most} more")
    return lines


def summarize_kinds(findings: Iterable[Finding]) -> list[str]:
    """A line for each kind: its first finding, and how many more there are."""
    return [
        f"{first.kind}: {first.message}" + (f" (and {len(more)} more)" if more else "")
        for first, *more in _by_kind(findings)
    ]
