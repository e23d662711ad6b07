"""Commands in a row, each carried out once: what is finished is known by its outputs and its key.

A step's key is the SHA-256 of its command and of the files that it reads. `plan.json` holds, for
each step that was begun, its key and whether it is finished; so a run that was killed resumes, and
what depends on a changed file is done again.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datasets.files import read_json
from datasets.sources.pool import end_with_parent
from engine import UsageError
from engine.files import ROOT, write_json
from engine.weights.download import sha256_of

LEFT_OUT = "left out: "  # how a line begins that names a video which cannot be used


@dataclass(frozen=True)
class Step:
    """A command, and when it is finished.

    Attributes:
        name: of the step, unique.
        command: a script and its flags, as typed after `python` in the repository.
        reads: files that it depends on.
        writes: files that are there when it is finished.
        minutes: that it will take, estimated.
        resume: flags that make it resume what the same command began; other commands need none.
        owns: a folder that holds its output alone: removed where another command began it.
        leaves_out: whether it may fail for some videos and yet be finished.
        keyless: whether it is finished as soon as its outputs are there.
    """

    name: str
    command: tuple[str, ...]
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    minutes: float = 0.0
    resume: tuple[str, ...] = ()
    owns: Path | None = None
    leaves_out: bool = False
    keyless: bool = False

    def key(self) -> str | None:
        """None while files that it reads are not there."""
        if not all(path.is_file() for path in self.reads):
            return None
        content = [self.command, [sha256_of(path) for path in self.reads]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Plan:
    """What was begun and finished, in `path`; `notes` are kept beside it.

    Raises DataError for a file that is no such record.
    """

    def __init__(self, path: Path):
        self.path = path
        content = read_json(path, dict[str, dict[str, Any]]) if path.exists() else {}
        self.steps, self.notes = content.get("steps", {}), content.get("notes", {})

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"notes": self.notes, "steps": self.steps})

    def is_finished(self, step: Step) -> bool:
        if not all(path.is_file() for path in step.writes):
            return False
        begun = self.steps.get(step.name, {})
        return step.keyless or (begun.get("finished", False) and begun["key"] == step.key())

    def carry_out(self, step: Step, show: Callable[[str], None]) -> int:
        """Runs a step's command and returns its exit code, 0 also where it left out videos."""
        key, begun = step.key(), self.steps.get(step.name, {})
        is_same = begun.get("key") == key
        if step.owns and begun and not is_same:
            shutil.rmtree(step.owns, ignore_errors=True)
        self.steps[step.name] = {"key": key, "command": step.command, "finished": False}
        self.write()
        before = _times(step.writes)
        command = [*step.command, *(step.resume if is_same else ())]
        show(f"$ python {shlex.join(command)}")
        code, lines = run_command(command, show)
        left_out = [line.removeprefix(LEFT_OUT) for line in lines if line.startswith(LEFT_OUT)]
        if code == 1 and step.leaves_out and left_out and _times(step.writes) != before:
            code = 0
        if code == 0:
            self.steps[step.name] |= {"finished": True, "left_out": left_out}
            self.write()
        return code

    def left_out(self) -> list[str]:
        """`name: reason` of the videos that cannot be used."""
        return [line for step in self.steps.values() for line in step.get("left_out", [])]


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """The folder, which is made, is this process's while the block runs.

    Raises UsageError if another one works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UsageError(f"another quickstart works in {folder}; wait for its end") from None


def _times(paths: Sequence[Path]) -> list[int | None]:
    return [path.stat().st_mtime_ns if path.is_file() else None for path in paths]


def run_command(command: Sequence[str], show: Callable[[str], None]) -> tuple[int, list[str]]:
    """Runs a script with this interpreter in the repository; returns its exit code and its lines.

    Each line of its output is shown as it comes; stderr, where bars are, is the terminal's. The
    process ends when this one ends, however that ends. Ctrl-C reaches it too, and it is waited for.
    """
    lines = []
    # The terminal sends Ctrl-C to the command as well, which ends itself.
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=end_with_parent,
        )
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            show(lines[-1])
        return process.wait(), lines
    finally:
        signal.signal(signal.SIGINT, handler)
