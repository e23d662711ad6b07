"""A run's folder: one training owns it at a time, and nothing in it is written over unasked."""

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from datasets.files import DataError, check_writable, printable, read_text
from engine import UsageError, distributed
from engine.checkpoint import BEST, BEST_AVERAGE, LAST, metadata_faults
from engine.config import TrainingConfig
from engine.files import CheckpointError, read_file, resolve
from engine.training.records import LOG_FILE

EPOCH_FILE = "epoch_{:04d}.pth.tar"
_EPOCH_NAME = re.compile(r"epoch_(\d{1,9})\.pth\.tar")
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The folder is this training's, all its processes', for as long as the block runs.

    The operating system gives the lock up when the main process ends, however it ends. The folder
    is made, and tried.

    Raises UsageError, in every process, for a folder that is another training's or cannot be
    written to; the message says whose it is.
    """
    with contextlib.ExitStack() as stack:
        fault = None
        if distributed.is_main():
            try:
                stack.enter_context(_locked(folder))
                stack.callback(_remove_empty, folder)
                check_writable(folder)
            except (UsageError, OSError) as error:
                fault = str(error)
        fault = distributed.gather(fault)[0]
        if fault is not None:
            raise UsageError(fault)
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder.with_name(f".{folder.name}.lock")  # the folder itself may be renamed
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{folder} is another training's: {_holder(path)}; wait for its end, or give this one "
            "a folder of its own with --output"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"warning: the file system of {folder} has no locks: start no second training there")
        yield
        return
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # a full disk is said by whoever tries the folder
            path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it tries again
        lock.release()


def _holder(lock: Path) -> str:
    try:
        return printable(read_text(lock, most=1000).partition("\n")[0]) or "another process"
    except DataError:
        return "another process"


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def choose_checkpoint(config: TrainingConfig, folder: Path) -> Path | None:
    """What to continue from or evaluate, None to begin.

    `-c last` begins a run that has no checkpoint yet, so that one command serves for the first
    start and all later ones. Processes that torchrun started again resume, whatever the flags say.
    """
    choice = config.resume
    if config.evaluate:
        choice = choice or "best"
    elif distributed.was_restarted() and find_last(folder):
        choice = "last"
    elif choice == "last" and not any(folder.glob("*.pth.tar")):
        print(f"no checkpoint in {folder} yet: the training begins")
        return None
    if choice is None:
        return None
    if choice == "last":
        return find_last(folder) or folder / LAST
    return folder / BEST if choice == "best" else resolve(Path(choice), "")


def find_last(folder: Path) -> Path | None:
    """The last checkpoint, or, where a kill or a user left none, the newest of the others.

    The best model is a whole checkpoint. Killed in its first epoch's end, a run has only that.
    """
    epochs = [folder / EPOCH_FILE.format(number) for number in reversed(kept_epochs(folder))]
    found = [path for path in (folder / LAST, *epochs[:1], folder / BEST) if path.exists()]
    return found[0] if found else None


def kept_epochs(folder: Path) -> list[int]:
    """The epochs whose checkpoints `--keep` has kept, in order."""
    names = (_EPOCH_NAME.fullmatch(path.name) for path in folder.glob("epoch_*.pth.tar"))
    return sorted(int(name[1]) for name in names if name)


def keep_newest(folder: Path, epoch: int, number: int) -> None:
    """Gives the last checkpoint a second name, and drops those of all but the newest epochs."""
    kept = folder / EPOCH_FILE.format(epoch)
    kept.unlink(missing_ok=True)
    os.link(folder / LAST, kept)
    for older in kept_epochs(folder)[:-number]:
        (folder / EPOCH_FILE.format(older)).unlink(missing_ok=True)


def epochs_done(path: Path) -> int:
    """The epochs that a checkpoint has done; raises CheckpointError if it cannot tell."""
    content = read_file(path)
    faults = metadata_faults({"epoch": content.get("epoch", 0)})
    if faults:
        raise CheckpointError(f"{path}: {faults[0]}")
    return content.get("epoch", 0)


def describe_held(path: Path) -> str:
    """Which epoch a checkpoint's file holds, for people."""
    if not os.path.lexists(path):
        return f"there is no {path.name}"
    try:
        return f"{path.name} holds epoch {epochs_done(path)}"
    except CheckpointError:
        return f"{path.name} is damaged"


def newest_finite(folder: Path) -> Path | None:
    """The newest of its checkpoints whose weights are all finite numbers."""
    paths = sorted(folder.glob("*.pth.tar"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for path in paths:
        try:
            weights = read_file(path)["state_dict"].values()
            if all(value.isfinite().all() for value in weights):
                return path
        except (CheckpointError, KeyError, AttributeError, TypeError, RuntimeError):
            continue  # it is none that could be used
    return None


def set_aside(path: Path) -> Path:
    """Renames a file or a folder to `NAME.before-TIME`, never onto another; returns that path."""
    stem, dot, ending = path.name.partition(".pth.tar")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = [f"{stem}.before-{stamp}{n and f'-{n}' or ''}{dot}{ending}" for n in range(10_000)]
    free = (path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    return path.rename(next(free))


def set_run_aside(folder: Path) -> None:
    """A run that begins, or continues another folder's, never writes over an earlier one."""
    if distributed.is_main() and (any(folder.glob("*.pth.tar")) or (folder / LOG_FILE).exists()):
        print(f"an earlier run was there; it is kept as {set_aside(folder)}")
        check_writable(folder)
    distributed.wait_for_all()


def set_later_aside(folder: Path, resumed: Path, epoch: int) -> None:
    """Before a run continues from an earlier checkpoint of its own, later ones get other names.

    So does one that is damaged.

    Args:
        resumed: what is continued from; nothing happens to that.
        epoch: epochs it has done.
    """
    later = [EPOCH_FILE.format(number) for number in kept_epochs(folder) if number > epoch]
    for name in (LAST, BEST, BEST_AVERAGE, *later):
        path = folder / name
        if resumed.name in (LAST, name) or not os.path.lexists(path):
            continue
        try:
            is_later, what = name in later or epochs_done(path) > epoch, "was of a later epoch"
        except CheckpointError:
            is_later, what = True, "is damaged"
        if is_later:
            print(f"{name} {what}; it is kept as {set_aside(path).name}")
