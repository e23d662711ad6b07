"""Signals: SIGTERM and Ctrl-C end a training at its next optimizer step, SIGUSR1 only saves it."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from engine import distributed

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Interrupted(Exception):
    """The training was asked to end, and its state is saved; `code` is the exit code."""

    def __init__(self, code: int):
        super().__init__(f"ended by a signal (exit code {code})")
        self.code = code


class Signals:
    """A context in which signals are noted instead of obeyed.

    Attributes:
        save: SIGUSR1 was agreed on; whoever saves sets it back.
        exit_code: of the signal that asks to end, or None. A second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.save = False
        self.exit_code: int | None = None
        self._noted: set[int] = set()
        self._interrupted = False
        self._earlier: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Signals":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def agree(self) -> None:
        """Turns what was noted into what is done: a signal to one of several processes is for all.

        All of them have to call it at the same place.
        """
        noted, self._noted = self._noted, set()
        numbers = (signal.SIGUSR1, *EXIT_CODES)
        sums = distributed.sum_over_processes([float(number in noted) for number in numbers])
        agreed = [number for number, wishes in zip(numbers, sums, strict=True) if wishes]
        self.save = self.save or signal.SIGUSR1 in agreed
        codes = [EXIT_CODES[number] for number in agreed if number in EXIT_CODES]
        self.exit_code = codes[0] if codes else self.exit_code

    @staticmethod
    def notice_dead_workers_at_the_next_batch() -> None:
        """DataLoader would raise the moment a loader process dies, even within an optimizer step.

        Without its handler the death is found when the next batch is waited for.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            print("\nsaving at the next optimizer step; Ctrl-C again ends at once", flush=True)
        self._noted.add(number)


def ignore_in_worker(worker: int) -> None:
    """For loader processes: a signal to the whole group is the main process's to answer.

    Only the parent's own SIGTERM, by which it ends its loader processes, is obeyed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def this_command() -> str:
    """The command line that began this process."""
    return shlex.join([*distributed.launcher(), *sys.argv])


def continuing_command(argv: Sequence[str]) -> str:
    """The command line that resumes what this one began: `-c last`, or the same where a training's
    flags stand after `--`, as in ablate.py, which resumes by itself."""
    if "--" in argv:
        return shlex.join([*distributed.launcher(), *argv])
    kept, skip = [], False
    for place, word in enumerate(argv):
        follows = argv[place + 1] if place + 1 < len(argv) else "-"
        if skip or word.startswith("--continue="):
            skip = False
        elif word in ("-c", "--continue"):
            skip = not follows.startswith("-")
        else:
            kept.append(word)
    return shlex.join([*distributed.launcher(), *kept, "-c", "last"])
