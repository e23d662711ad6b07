"""Runs that are killed, stopped or starved of disk, and go on as if nothing had happened."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

import two_stream_bert2
from engine import UsageError
from engine.files import CheckpointError
from engine.training.signals import continuing_command
from tests.conftest import run_script

ARCH = "rgb_tiny3D16f_bert10_FRMB"
EPOCHS = 3
# A server that has imported everything and computed nothing: each run forks from it at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.scripts.test_resume"])


def flags(tiny, output: Path, *more: object) -> list[str]:
    fixed = ["--arch", ARCH, "--output", output, "-b", 2, "--iter-size", 2, "--lr", "1e-3"]
    fixed += ["--epochs", EPOCHS, "--workers", 0, "--save-steps", 1]
    return [*tiny.flags, *map(str, [*fixed, *more])]


def folder(tiny, output: Path) -> Path:
    return output / f"{tiny.name}_{ARCH}_split1"


def run_in_process(
    argv: list[str], printed: Path | None = None, die_at_sync: int = 0, file_size: int = 0
) -> None:
    """Runs the training script; optionally prints to a file, dies at the n-th fsync, or may not
    write files beyond a size."""
    if printed is not None:
        for stream in (1, 2):
            os.dup2(os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    multiprocessing.set_start_method("fork", force=True)  # loader processes as in a plain run
    synced = 0
    real = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == die_at_sync:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    raise SystemExit(two_stream_bert2.main(argv))


def start(argv: list[str], **options: object):
    process = CONTEXT.Process(target=run_in_process, args=(argv,), kwargs=options)
    process.start()
    return process


def continue_flags(tiny, output: Path) -> list[str]:
    """`-c last`, or from the beginning as long as there is no checkpoint."""
    return ["-c", "last"] if (folder(tiny, output) / "last.pth.tar").exists() else []


def finish(tiny, output: Path, *more: object) -> None:
    process = start(flags(tiny, output, *more, *continue_flags(tiny, output)))
    process.join()
    assert process.exitcode == 0


def what_came_out(tiny, output: Path) -> tuple[dict, dict, list[dict]]:
    """Weights of last and best, and the log without its timings."""
    run = folder(tiny, output)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timings = ("seconds_loading", "seconds_computing", "clips_per_second")
    for line in log:
        for part in ("train", "val"):
            line[part] = {k: v for k, v in line[part].items() if k not in timings}
    last, best = (
        torch.load(run / f"{name}.pth.tar", weights_only=True)["state_dict"]
        for name in ("last", "model_best")
    )
    return last, best, log


def assert_same(a, b) -> None:
    for first, second in zip(a[:2], b[:2], strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert a[2] == b[2]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """What an undisturbed run gives."""
    output = tmp_path_factory.mktemp("whole")
    finish(tiny, output)
    return what_came_out(tiny, output)


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_at_random_moments(whole, tiny, tmp_path, workers):
    """Twelve kills in all, wherever they hit: loading, computing, writing, validating."""
    rng = random.Random(workers)
    runs = tmp_path / "runs"
    kills = 0
    while kills < 6:
        process = start(flags(tiny, runs, "--workers", workers, *continue_flags(tiny, runs)))
        process.join(timeout=rng.uniform(0.2, 1.5))
        if process.exitcode is not None:  # finished before it was killed often enough: again
            assert process.exitcode == 0
            shutil.rmtree(runs)
            continue
        process.kill()
        process.join()
        kills += 1
    finish(tiny, runs, "--workers", workers)
    assert_same(what_came_out(tiny, runs), whole)


def test_killed_inside_every_kind_of_checkpoint_write(whole, tiny, tmp_path):
    """A file and its folder are synced: odd numbers die before the rename, even ones after it."""
    exit_codes = []
    for sync in (1, 2, 3, 4, 5, 6, 7, 8):
        process = start(flags(tiny, tmp_path, *continue_flags(tiny, tmp_path)), die_at_sync=sync)
        process.join()
        exit_codes.append(process.exitcode)
    assert set(exit_codes) <= {-signal.SIGKILL, 0} and exit_codes.count(-signal.SIGKILL) >= 4
    finish(tiny, tmp_path)
    assert_same(what_came_out(tiny, tmp_path), whole)


def children(process) -> list[int]:
    """Its loader processes."""
    files = Path(f"/proc/{process.pid}").glob("task/*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def listens(process) -> bool:
    """Whether the training takes signals: before and after it, they end a process as ever."""
    with contextlib.suppress(FileNotFoundError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(re.search(r"SigCgt:\s*(\w+)", status).group(1), 16)
        return bool(caught >> (signal.SIGUSR1 - 1) & 1)
    return False


def wait_until_it_listens(process) -> None:
    while process.is_alive() and not listens(process):
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ended_by_a_signal_to_all_its_processes(whole, tiny, tmp_path, number, code):
    ended = 0
    for delay in (0.4, 0.7, 1.0):
        more = ["--workers", 1, "--save-steps", 1000, *continue_flags(tiny, tmp_path)]
        process = start(flags(tiny, tmp_path, *more))
        wait_until_it_listens(process)
        time.sleep(delay)
        for pid in [process.pid, *children(process)] if listens(process) else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        process.join()
        assert process.exitcode in (code, 0)
        ended += process.exitcode == code
    assert ended
    finish(tiny, tmp_path)
    assert_same(what_came_out(tiny, tmp_path), whole)


def test_a_signal_prints_the_command_that_goes_on():
    for words, expected in (
        ("two_stream2.py -a x", "python two_stream2.py -a x -c last"),
        ("two_stream2.py -c -a x", "python two_stream2.py -a x -c last"),
        ("two_stream2.py -c best -a x", "python two_stream2.py -a x -c last"),
        ("two_stream2.py --continue=f.pth -e", "python two_stream2.py -e -c last"),
        ("two_stream2.py -a x -c", "python two_stream2.py -a x -c last"),
        ("ablate.py -a x -- --lr 1", "python ablate.py -a x -- --lr 1"),  # resumes by itself
    ):
        assert continuing_command(words.split()) == expected


def test_sigusr1_saves_and_goes_on(whole, tiny, tmp_path):
    process = start(flags(tiny, tmp_path, "--save-steps", 1000), printed=tmp_path / "out")
    wait_until_it_listens(process)
    os.kill(process.pid, signal.SIGUSR1)
    process.join()
    assert process.exitcode == 0
    assert "saved: " in (tmp_path / "out").read_text()
    assert_same(what_came_out(tiny, tmp_path), whole)


def test_a_full_disk_loses_nothing(tiny, tmp_path):
    """Files may not grow beyond 100 kB: no checkpoint fits, the training ends all the same."""
    finish(tiny, tmp_path, "--max-steps", 2)
    run = folder(tiny, tmp_path)
    before = (run / "last.pth.tar").read_bytes()
    out = tmp_path / "out"
    process = start(flags(tiny, tmp_path, "-c", "last"), printed=out, file_size=100_000)
    process.join()
    assert process.exitcode == 1
    printed = out.read_text()
    assert "cannot be written" in printed and "the next save tries again" in printed
    assert "File too large" in printed and "enforce fail" not in printed
    assert f"epoch {EPOCHS}/{EPOCHS}" in printed
    (error,) = [line for line in printed.splitlines() if line.startswith("error:")]
    assert f"{EPOCHS} epochs are done, but" in error and "last.pth.tar holds epoch 1" in error
    assert (run / "last.pth.tar").read_bytes() == before
    assert not list(run.glob("*.tmp"))


def test_a_loader_death_between_two_epochs_repeats_no_result(whole, tiny, tmp_path):
    """Dead before the second epoch's first step, the run goes on at that epoch's beginning."""
    more = ["-b", 1, "--iter-size", 12, "--workers", 1, "--save-steps", 1000]
    process = start(flags(tiny, tmp_path / "cut", *more), printed=tmp_path / "out")
    out = tmp_path / "out"
    while not out.exists() or "epoch 1/" not in out.read_text():
        time.sleep(0.01)
    os.kill(children(process)[0], signal.SIGKILL)
    process.join()
    assert process.exitcode == 1
    for output in ("cut", "undisturbed"):
        finish(tiny, tmp_path / output, *more)
    both = [what_came_out(tiny, tmp_path / output) for output in ("cut", "undisturbed")]
    assert_same(*both)


def test_keep(tiny, tmp_path):
    finish(tiny, tmp_path, "--keep", 2)
    names = sorted(path.name for path in folder(tiny, tmp_path).glob("*.pth.tar"))
    kept = ["epoch_0002.pth.tar", "epoch_0003.pth.tar"]
    assert names == [*kept, "last.pth.tar", "model_best.pth.tar"]
    epochs = [
        torch.load(folder(tiny, tmp_path) / name, weights_only=True)["epoch"] for name in kept
    ]
    assert epochs == [2, 3]


def test_a_truncated_last_offers_the_others(tiny, tmp_path):
    finish(tiny, tmp_path, "--keep", 1)
    path = folder(tiny, tmp_path) / "last.pth.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated.*newest first: .*epoch_0003.pth.tar"):
        two_stream_bert2.main(flags(tiny, tmp_path, "-c", "last"))
    damaged = path.read_bytes()
    assert two_stream_bert2.main(flags(tiny, tmp_path, "-c", "best", "--epochs", 4)) == 0
    (kept,) = path.parent.glob("last.before-*.pth.tar")
    assert kept.read_bytes() == damaged


def test_two_trainings_do_not_share_a_folder(whole, tiny, tmp_path):
    """The second, and a second `-c last`, say who is there; the first is not disturbed."""
    process = start(flags(tiny, tmp_path))
    wait_until_it_listens(process)
    for more in ([], ["-c", "last"]):
        with pytest.raises(UsageError, match=f"process {process.pid} on"):
            two_stream_bert2.main(flags(tiny, tmp_path, *more))
    process.join()
    assert process.exitcode == 0
    assert_same(what_came_out(tiny, tmp_path), whole)


def test_killed_before_the_first_last_the_best_is_resumed(whole, tiny, tmp_path):
    """A file and its folder are synced: the third sync is that of the first `last`."""
    argv = flags(tiny, tmp_path, "--save-steps", 1000)
    process = start(argv, die_at_sync=3)
    process.join()
    run = folder(tiny, tmp_path)
    assert [path.name for path in run.glob("*.pth.tar")] == ["model_best.pth.tar"]
    process = start([*argv, "-c", "last"])
    process.join()
    assert process.exitcode == 0
    assert_same(what_came_out(tiny, tmp_path), whole)


def interrupted_run(tiny, output: Path) -> Path:
    """Within its second epoch; returns its `last`."""
    process = start(flags(tiny, output, "--epochs", 2), die_at_sync=9)
    process.join()
    path = folder(tiny, output) / "last.pth.tar"
    assert torch.load(path, weights_only=True)["progress"] is not None
    return path


@pytest.mark.parametrize("change", ["reversed", "swapped", "relabelled"])
def test_another_order_of_the_list_is_refused_within_an_epoch(tiny, tmp_path, change):
    settings = tmp_path / "settings"
    shutil.copytree(tiny.settings, settings)
    path = interrupted_run(tiny, tmp_path)
    before = path.read_bytes()
    file = settings / tiny.name / "train_rgb_split1.txt"
    lines = file.read_text().splitlines(keepends=True)
    if change == "reversed":
        lines.reverse()
    elif change == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines[0] = lines[0].replace(" 0\n", " 1\n")
    file.write_text("".join(lines))
    again = flags(tiny, tmp_path, "-c", "last", "--settings", settings)
    words = "other videos or labels, 1 of 12" if change == "relabelled" else "in another order"
    with pytest.raises(CheckpointError, match=f"the training list has changed since: .*{words}"):
        two_stream_bert2.main(again)
    assert path.read_bytes() == before


def test_a_checkpoint_without_the_lists_order_is_warned_of(tiny, tmp_path, capsys):
    path = interrupted_run(tiny, tmp_path)
    content = torch.load(path, weights_only=True)
    del content["fingerprint"]
    torch.save(content, path)
    assert two_stream_bert2.main(flags(tiny, tmp_path, "-c", "last")) == 0
    assert "does not say in which order" in capsys.readouterr().out


def test_another_training_list_is_refused_within_an_epoch(tiny, tmp_path):
    finish(tiny, tmp_path, "--epochs", 1)
    path = folder(tiny, tmp_path) / "last.pth.tar"
    content = torch.load(path, weights_only=True)
    result = {"videos": 2, "clips": 2, "steps": 1}
    content["progress"] = {"result": result, "permutation": torch.arange(5)}
    torch.save(content, path)
    process = run_script("two_stream_bert2.py", *flags(tiny, tmp_path, "-c", "last"), check=False)
    assert process.returncode == 1
    assert "begun with 5 training videos, now there are 12" in process.stderr


def test_a_killed_loader_process_ends_the_run_with_a_checkpoint(whole, tiny, tmp_path):
    out = tmp_path / "out"
    options = ["--workers", 1, "--epochs", 200, "--save-steps", 100_000, "--save-freq", 1000]
    process = start(flags(tiny, tmp_path, *options), printed=out)
    while not out.exists() or "epoch 1/200" not in out.read_text():
        time.sleep(0.02)
    os.kill(children(process)[0], signal.SIGKILL)
    process.join(timeout=60)
    assert process.exitcode == 1
    printed = out.read_text()
    assert "a loader process died" in printed and "-c last" in printed
    content = torch.load(folder(tiny, tmp_path) / "last.pth.tar", weights_only=True)
    assert content["epoch"] >= 1 and content["progress"] is not None
