"""A run's folder: whose it is, what is kept in it, what is set aside."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from engine import UsageError
from engine.checkpoint import BEST, LAST
from engine.config import DataConfig, Recipe, TrainingConfig
from engine.training import folder as folders
from engine.training.folder import (
    choose_checkpoint,
    describe_held,
    keep_newest,
    newest_finite,
    owned,
    set_aside,
    set_later_aside,
    set_run_aside,
)

FORK = multiprocessing.get_context("fork")


def save(path, epoch: object, value: float = 1.0) -> None:
    path.parent.mkdir(exist_ok=True)
    torch.save({"epoch": epoch, "state_dict": {"a": torch.tensor([value])}}, path)


def config(resume: str | None) -> TrainingConfig:
    return TrainingConfig(DataConfig(), Recipe(), "x", resume=resume)


def hold(folder, ready, with_child: bool) -> None:
    with owned(folder):
        if with_child:  # as a loader process is
            FORK.Process(target=time.sleep, args=(60,), daemon=True).start()
        ready.set()
        time.sleep(60)


def test_a_second_training_is_refused_and_told_whose_it_is(tmp_path):
    with owned(tmp_path / "run"):
        with pytest.raises(UsageError, match=f"process {os.getpid()} on .* since 20.*--output"):
            with owned(tmp_path / "run"):
                pass
        with owned(tmp_path / "other"):
            pass
    with owned(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())  # an empty folder and the lock's file go


@pytest.mark.parametrize("with_child", [False, True])
def test_a_killed_process_holds_nothing_even_if_its_loader_lives_on(tmp_path, with_child):
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "run", ready, with_child))
    process.start()
    ready.wait()
    with pytest.raises(UsageError, match=f"process {process.pid} on"), owned(tmp_path / "run"):
        pass
    children = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
    assert len(children) == with_child
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with owned(tmp_path / "run"):
        pass
    for child in children:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"\x1b[31mred\n", b"x" * 5000])
def test_a_strange_lock_file_is_no_obstacle_and_shown_escaped(tmp_path, content):
    lock = tmp_path / ".run.lock"
    lock.write_bytes(content)
    with owned(tmp_path / "run"):
        lock.write_bytes(content)
        with pytest.raises(UsageError, match="another training's") as error:
            with owned(tmp_path / "run"):
                pass
        assert "\x1b" not in str(error.value) and len(str(error.value)) < 500


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UsageError, match="run"), owned(tmp_path / "run"):
        pass


def test_what_is_set_aside_never_meets_another(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "now")
    for number in range(3):
        (tmp_path / LAST).write_text(str(number))
        set_aside(tmp_path / LAST)
        save(tmp_path / "run" / LAST, number)
        set_run_aside(tmp_path / "run")
    names = sorted(path.name for path in tmp_path.iterdir())
    files = ["last.before-now-1.pth.tar", "last.before-now-2.pth.tar", "last.before-now.pth.tar"]
    assert names == [*files, "run", "run.before-now", "run.before-now-1", "run.before-now-2"]
    assert [(tmp_path / name).read_text() for name in files] == ["1", "2", "0"]


def test_the_best_model_alone_is_a_run_that_is_kept(tmp_path):
    save(tmp_path / "run" / BEST, 1)
    set_run_aside(tmp_path / "run")
    assert len(list(tmp_path.glob("run.before-*/" + BEST))) == 1


def test_last_is_found_by_other_names_too(tmp_path):
    assert choose_checkpoint(config("last"), tmp_path) is None
    save(tmp_path / BEST, 1)
    assert choose_checkpoint(config("last"), tmp_path) == tmp_path / BEST
    for number in (2, 10):
        save(tmp_path / f"epoch_{number:04d}.pth.tar", number)
    assert choose_checkpoint(config("last"), tmp_path).name == "epoch_0010.pth.tar"
    save(tmp_path / LAST, 11)
    assert choose_checkpoint(config("last"), tmp_path) == tmp_path / LAST
    assert choose_checkpoint(config(None), tmp_path) is None


def test_the_newest_epochs_are_kept_whatever_the_files_times(tmp_path):
    save(tmp_path / LAST, 4)
    for number, age in ((1, 10), (2, 99_999), (3, 50)):
        save(tmp_path / f"epoch_{number:04d}.pth.tar", number)
        os.utime(tmp_path / f"epoch_{number:04d}.pth.tar", (age, age))
    (tmp_path / "epoch_mine.pth.tar").write_text("a user's")
    keep_newest(tmp_path, 4, 2)
    names = sorted(path.name for path in tmp_path.glob("epoch_*"))
    assert names == ["epoch_0003.pth.tar", "epoch_0004.pth.tar", "epoch_mine.pth.tar"]


@pytest.mark.parametrize(
    "content", [b"", b"junk", None, {"epoch": "9"}, {"epoch": float("nan")}, {"epoch": 2**70}]
)
def test_a_damaged_last_is_kept_and_stops_nobody(tmp_path, capsys, content):
    save(tmp_path / BEST, 1)
    if content is None:
        (tmp_path / LAST).symlink_to("nowhere")
    elif isinstance(content, bytes):
        (tmp_path / LAST).write_bytes(content)
    else:
        torch.save(content, tmp_path / LAST)
    set_later_aside(tmp_path, tmp_path / BEST, 1)
    assert "last.pth.tar is damaged; it is kept as last.before-" in capsys.readouterr().out
    assert len([path for path in tmp_path.iterdir() if ".before-" in path.name]) == 1
    assert not os.path.lexists(tmp_path / LAST)


def test_all_later_epochs_are_set_aside_when_a_run_goes_back(tmp_path):
    for name, epoch in ((LAST, 3), (BEST, 3), ("epoch_0002.pth.tar", 2), ("epoch_0003.pth.tar", 3)):
        save(tmp_path / name, epoch)
    set_later_aside(tmp_path, tmp_path / "epoch_0002.pth.tar", 2)
    left = sorted(path.name.split(".before-")[0] for path in tmp_path.iterdir())
    assert left == ["epoch_0002.pth.tar", "epoch_0003", "last", "model_best"]
    before = set(tmp_path.iterdir())
    save(tmp_path / LAST, 2)
    save(tmp_path / BEST, 3)  # a kill came before `last` was written: it will be found again
    set_later_aside(tmp_path, tmp_path / LAST, 2)
    assert set(tmp_path.iterdir()) == before | {tmp_path / LAST, tmp_path / BEST}


def test_the_newest_finite_checkpoint(tmp_path):
    assert newest_finite(tmp_path) is None
    save(tmp_path / BEST, 1)
    os.utime(tmp_path / BEST, (1, 1))
    save(tmp_path / LAST, 2, value=float("nan"))
    (tmp_path / "epoch_0001.pth.tar").write_text("junk")
    torch.save({"state_dict": [1]}, tmp_path / "epoch_0002.pth.tar")
    assert newest_finite(tmp_path) == tmp_path / BEST
    assert describe_held(tmp_path / LAST) == "last.pth.tar holds epoch 2"
    assert describe_held(tmp_path / "epoch_0001.pth.tar") == "epoch_0001.pth.tar is damaged"
    assert describe_held(tmp_path / "x.pth.tar") == "there is no x.pth.tar"


def test_file_systems_without_locks_are_said(tmp_path, monkeypatch, capsys):
    def no_lock(self) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(folders.FileLock, "acquire", no_lock)
    with owned(tmp_path / "run"):
        assert "has no locks" in capsys.readouterr().out
