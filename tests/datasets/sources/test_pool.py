"""Processes that work on videos: results in order, and an end without a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest

from datasets.sources.pool import in_processes
from tests.conftest import ROOT

INTERRUPTED = r"""
import os
import time
from datasets.sources.pool import in_processes

def sleep(number):
    os.write(1, f"{number}\n".encode())
    time.sleep(60)

try:
    in_processes(sleep, range(40), 2)
except KeyboardInterrupt:
    print("interrupted")
"""


def double(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return 2 * number


def end(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("torch", [False, True])
def test_results_are_in_order(processes, torch):
    assert in_processes(double, range(20), processes, torch) == [*range(0, 40, 2)]


def test_an_error_comes_out():
    with pytest.raises(ValueError, match="negative"):
        in_processes(double, [1, -1, *range(1000)], 2)


def test_a_killed_process_ends_the_work():
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        in_processes(end, range(40), 2)


@pytest.mark.parametrize("all_processes", [False, True], ids=["parent", "terminal"])
@pytest.mark.parametrize("repeat", range(3))
def test_ctrl_c_ends_all_at_once(all_processes, repeat):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert {process.stdout.readline(), process.stdout.readline()} == {"0\n", "1\n"}
    begun = time.monotonic()
    (os.killpg if all_processes else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("interrupted\n", "") and time.monotonic() - begun < 20
