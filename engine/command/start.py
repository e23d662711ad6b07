"""How a command begins and ends: `from engine.command.start import run` first, `run(main)` last.

This import is light and comes before all packages, so that while the others load a missing package
is one line that names the way out, and Ctrl-C ends the command without a traceback. `run` turns a
user's mistake into one line and exit code 1.
"""

import contextlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).resolve().parents[2]
_VENV = _ROOT / ".venv"
_INTERRUPTED = 130  # the exit code that shells give Ctrl-C


def missing_package(error: BaseException) -> str | None:
    """What to do about a package that cannot be imported; None for any other error."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    ours = (_ROOT / name).is_dir() or (_ROOT / f"{name}.py").is_file()
    if not name or ours:
        return None
    if Path(sys.prefix).resolve() == _VENV.resolve():
        way = "pip install -r requirements.txt"
    else:
        way = "source .venv/bin/activate (make setup makes that environment)"
    return f"{error}: {sys.executable} cannot import a package of requirements.txt; run: {way}"


def _say_what_is_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """`sys.excepthook` of commands."""
    if message := missing_package(error):
        print(f"error: {message}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _leave(*_: object) -> None:
    """Answers Ctrl-C while modules load: a KeyboardInterrupt could be lost, or shown, in them."""
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED)


def _is_command() -> bool:
    """Whether this process runs one of our files, and not a test or someone's program."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = Path(file).resolve().parents if file else ()
    return _ROOT in folders and _VENV not in folders


if _is_command():
    sys.excepthook = _say_what_is_missing
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Around work that resumes when its command is run again: Ctrl-C says so."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"this command resumes: {_command()}") from None


def _command() -> str:
    """What was typed to start this process."""
    with contextlib.suppress(ValueError):  # from another folder, or another drive
        script = str(Path(sys.argv[0]).resolve().relative_to(Path.cwd()))
        return shlex.join(["python", script, *sys.argv[1:]])
    return shlex.join(["python", *sys.argv])


def run(main: Callable[[], int | None]) -> None:
    """Runs a script: a user's mistake becomes one readable line and exit code 1."""
    from engine import distributed
    from engine.command.console import console

    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with console():
        try:
            with distributed.processes():
                code = main()
        except KeyboardInterrupt as error:
            print("; ".join(["interrupted", *map(str, error.args)]), file=sys.stderr)
            code = _INTERRUPTED
        except Exception as error:
            message = _in_words(error)
            if message is None:  # a mistake of ours: here, where names in it are escaped
                traceback.print_exc()
            else:
                distributed.report_error(message)
            code = 1
    sys.exit(code)


def _in_words(error: Exception) -> str | None:
    """What to tell of an error that a user can do something about; None for a mistake of ours."""
    from datasets.files import DataError
    from engine import UsageError, distributed
    from engine.files import CheckpointError
    from engine.loading import is_loader_death
    from engine.training.sums import NonFiniteLoss
    from models.archs import ArchError

    # A loader process's error has that process's traceback before its message.
    said = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
    users = ArchError | CheckpointError | DataError | NonFiniteLoss | UsageError | OSError
    if isinstance(error, users):
        return said
    if is_loader_death(error):
        return f"a loader process died: {error}"
    if distributed.lacks_memory(error):
        advice = "a smaller --batch-size or fewer --workers need less"
        return f"out of memory: {'; '.join([*said.splitlines()[:1], advice])}"
    return missing_package(error)
