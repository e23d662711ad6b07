"""What the benchmarks share: variants of the code, processes that take turns, tables."""

import argparse
import difflib
import json
import os
import subprocess
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from tabulate import tabulate
from tqdm import tqdm

from engine import UsageError
from engine.cli.flag_types import positive
from engine.files import ROOT
from models import get_arch, list_archs

EAGER = "none"
_PRESETS = ("exact", "fast", "max")
Row = TypeVar("Row", bound=Hashable)


class Variant(NamedTuple):
    """What is compared.

    Attributes:
        name: in tables.
        tree: the root of its code: this repository's, or a checked-out commit's.
        speed: a preset; EAGER for code as it is without one.
    """

    name: str
    tree: Path
    speed: str


def add_shared_flags(parser: argparse.ArgumentParser, archs: Sequence[str], repeats: int) -> None:
    add = parser.add_argument
    add(
        "--arch",
        nargs="+",
        default=archs,
        help="networks of scripts/list_archs.py, or patterns such as 'rgb_r2plus1d*' "
        f"({' '.join(archs)})",
    )
    add(
        "--speed",
        nargs="+",
        choices=(EAGER, *_PRESETS),
        default=_PRESETS,
        help=f"presets to measure; {EAGER} for none ({' '.join(_PRESETS)})",
    )
    add(
        "--against", metavar="COMMIT", help="also that commit's code, which the rest is compared to"
    )
    add("--repeats", type=positive, default=repeats, help="measurements of each (%(default)s)")
    add("--threads", type=positive, help="threads of the CPU (PyTorch's choice)")
    add("--device", help="where to compute: cuda, cpu, ... (cuda if there is one)")


def match_archs(patterns: Sequence[str]) -> list[str]:
    """The architectures of these names and shell patterns, each once.

    Raises UsageError for a pattern that matches none of the table, ArchError for an unknown name.
    """
    found = []
    for pattern in patterns:
        if not set("*?[") & set(pattern):
            found.append(get_arch(pattern).name)  # which also composes names
            continue
        matched = [name for name in list_archs() if fnmatch(name, pattern)]
        if not matched:
            near = difflib.get_close_matches(pattern.strip("*?"), list_archs(), 3, 0.3)
            raise UsageError(f"no architecture matches '{pattern}'; near: {', '.join(near)}")
        found += matched
    return list(dict.fromkeys(found))


def choose_variants(against: str | None, speeds: Sequence[str], stack: ExitStack) -> list[Variant]:
    """The variants in the table's order; a commit's code is there until `stack` ends."""
    variants = [Variant(speed, ROOT, speed) for speed in dict.fromkeys(speeds)]
    if against:
        variants.insert(0, Variant(against, stack.enter_context(checkout(against)), EAGER))
    return variants


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A commit's code in a temporary worktree of this repository.

    Raises UsageError without git, a repository or the commit.
    """
    if _git("rev-parse", "--git-dir").returncode:
        raise UsageError(
            f"--against needs this code's git repository, and {ROOT} is none: git clone it"
        )
    known = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if known.returncode:
        raise UsageError(
            f"--against {commit}: this repository has no such commit; `git log --oneline` shows "
            "them, and `git fetch --unshallow` brings the rest of a shallow clone"
        )
    with TemporaryDirectory(prefix="benchmark_") as folder:
        tree = Path(folder) / "code"
        try:
            made = _git("worktree", "add", "--detach", str(tree), known.stdout.strip())
            if made.returncode:
                raise UsageError(f"--against {commit}: {made.stderr.strip()}")
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> subprocess.CompletedProcess:
    command = ["git", "-C", str(ROOT), "-c", f"core.hooksPath={os.devnull}", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UsageError("--against needs git, which is not installed") from None


def thread_settings(threads: int | None) -> dict[str, str]:
    """Environment variables by which a process has so many threads."""
    return {"OMP_NUM_THREADS": str(threads)} if threads else {}


def start_process(
    command: Sequence[object], title: str, settings: Mapping[str, str], stack: ExitStack
) -> Callable[[str], Any]:
    """Starts a program until `stack` ends; the function sends a line and returns what it answers.

    Answers are a line of JSON each. Raises UsageError for a program that ended, and for an answer
    {"error": reason}. `settings` are environment variables.
    """
    process = subprocess.Popen(
        list(map(str, command)),
        bufsize=0,  # nothing is left to write when it ends
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | settings,
    )
    stack.enter_context(process)
    stack.callback(process.terminate)

    def ask(line: str) -> Any:
        try:
            process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            pass  # it has no answer, either
        text = process.stdout.readline()
        if not text:
            code = process.wait()
            raise UsageError(f"{title}: its process ended (exit code {code}); was memory enough?")
        answer = json.loads(text)
        if isinstance(answer, dict) and "error" in answer:
            raise UsageError(f"{title}: {answer['error']}")
        return answer

    return ask


def start_all(starts: Mapping[Row, Callable[[], Any]]) -> tuple[dict[Row, Any], dict[Row, str]]:
    """What each of `starts` returns; and, of those that raise UsageError, the reason, printed."""
    started, errors = {}, {}
    for row, start in starts.items():
        try:
            started[row] = start()
        except UsageError as error:
            errors[row] = str(error)
            print(f"left out: {error}", flush=True)
    return started, errors


def take_turns(
    asks: Mapping[Row, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[Row, list[Any]]:
    """The answers of each row; one after the other is asked, `repeats` times after a warm-up."""
    turns = [
        {row: ask() for row, ask in asks.items()}
        for _ in tqdm(
            range(warm_up + repeats), "turns", leave=False, dynamic_ncols=True, disable=None
        )
    ]
    return {row: [turn[row] for turn in turns[warm_up:]] for row in asks}


def compare_turns(seconds: Mapping[Row, Sequence[float]]) -> dict[Row, dict[str, Any]]:
    """Of each variant's turns: their median and range in seconds, and how many times as fast.

    `x base` is the median over the turns of the first variant's seconds by this one's, so what
    slows all of a turn down does not count.
    """
    base = next(iter(seconds.values()), [])
    return {
        row: {
            "seconds": median(own),
            "from": min(own),
            "to": max(own),
            "x base": median(b / o for b, o in zip(base, own, strict=True)),
            "turns": list(own),
        }
        for row, own in seconds.items()
    }


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """These columns of the rows that have no error."""
    shown = [[row[c] for c in columns] for row in rows if "error" not in row]
    print(tabulate(shown, columns, floatfmt=".2f"))
