"""Loader processes: what they do with little shared memory, few files, and when they die."""

import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine import UsageError, loading
from engine.loading import ClipViews, Loader, in_batches
from tests.conftest import ROOT


class Numbers(torch.utils.data.Dataset):
    """Item i: (an array filled with i, i)."""

    def __init__(self, size=1000, fatal=None):
        self.size, self.fatal = size, fatal

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((self.size,), i, dtype=torch.uint8), i


def values(loader) -> list[int]:
    found = []
    for clips, labels in loader:
        assert isinstance(clips, torch.Tensor) and clips.dtype == torch.uint8
        assert clips[:, 0].tolist() == labels.tolist()
        found += labels.tolist()
    return found


@pytest.mark.parametrize("room", [10**9, 1000])
def test_little_shared_memory_means_pipes_and_a_line(monkeypatch, capsys, room):
    state = SimpleNamespace(f_bavail=room, f_frsize=1)
    monkeypatch.setattr(loading.os, "statvfs", lambda path: state)
    batches = torch.utils.data.BatchSampler(range(12), 4, False)
    loader = Loader(Numbers(), 2, 4000, batch_sampler=batches, persistent=True)
    for _ in range(2):
        assert values(loader) == list(range(12))
    assert loader.piped == (room == 1000)
    assert ("/dev/shm has 0 MB free" in capsys.readouterr().out) == loader.piped


# A process of its own, with a small /dev/shm of its own.
IN_A_SMALL_ROOM = """
import torch
from engine.loading import Loader
from tests.engine.test_loading import Numbers, values
torch.set_num_threads(1)
if __name__ == "__main__":
    batches = torch.utils.data.BatchSampler(range(12), 4, False)
    item = {item}
    print(values(Loader(Numbers(1_000_000), 2, item, batch_sampler=batches)))
"""


def run_in_a_small_room(before: str, item: int) -> subprocess.CompletedProcess:
    code = IN_A_SMALL_ROOM.format(item=item)
    command = f"{before} && exec \"{sys.executable}\" -c '{code}'"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )


def can_unshare() -> bool:
    try:
        tried = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


SMALL = "mount -t tmpfs -o size=2m tmpfs /dev/shm"


@pytest.mark.skipif(not can_unshare(), reason="no mount namespaces here")
def test_a_real_small_shared_memory_neither_hangs_nor_loses_anything():
    ran = run_in_a_small_room(SMALL, 4_000_000)
    assert str(list(range(12))) in ran.stdout, ran.stderr
    assert "clips travel through pipes" in ran.stdout
    ran = run_in_a_small_room(SMALL, 0)  # nothing said that it would not fit
    assert ran.returncode != 0
    assert "the loader processes failed" in ran.stderr, ran.stderr


@pytest.mark.parametrize("most", [24, 40])
def test_few_file_descriptors_neither_hang_nor_lose_anything(most):
    code = IN_A_SMALL_ROOM.format(item=4_000_000)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    )
    assert str(list(range(12))) in ran.stdout, ran.stderr
    assert "file descriptors" in ran.stdout


def test_the_soft_limit_of_descriptors_is_raised(monkeypatch):
    limits = [(24, 4096)]
    monkeypatch.setattr(loading.resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(loading.resource, "setrlimit", lambda which, new: limits.append(new))
    assert loading._free_descriptors(100) == 100
    assert 100 < limits[-1][0] <= 4096


def test_a_dead_loader_process_ends_the_run_with_its_reason():
    batches = torch.utils.data.BatchSampler(range(12), 4, False)
    with pytest.raises(
        UsageError,
        match="loader processes failed.*(killed by signal|exited unexpectedly).*--workers",
    ):
        values(Loader(Numbers(fatal=6), 2, 4000, batch_sampler=batches))


def test_a_silent_loader_process_ends_the_run(monkeypatch):
    monkeypatch.setattr(loading, "DEADLINE", 0.5)

    class Stuck(Numbers):
        def __getitem__(self, i):
            signal.pause()

    with pytest.raises(UsageError, match="loader processes failed.*exited unexpectedly"):
        values(Loader(Stuck(), 1, 4000, batch_size=2))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_batches_are_full_and_results_return_to_their_clips(size):
    numbers = iter(range(100))
    clips = [
        ClipViews(row, [np.array([next(numbers)]) for _ in range(count)], "")
        for row, count in enumerate([3, 1, 0, 5, 2])
    ]
    batches = []

    def apply(views, rows):
        batches.append(len(rows))
        return views * 10

    found = list(in_batches(iter(clips), size, apply))
    assert [clip.row for clip, _ in found] == [0, 1, 2, 3, 4]
    for clip, results in found:
        assert results.ravel().tolist() == [10 * int(view[0]) for view in clip.views]
    assert set(batches) == {size} and len(batches) == -(-11 // size)
