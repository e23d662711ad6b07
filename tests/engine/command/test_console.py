"""What is printed to a terminal, to a full disk, and to a reader that has gone."""

from engine.command.start import run

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from datasets import DataError
from datasets.files import printable
from engine.command.console import Console, console
from tests.conftest import ROOT

BEGIN = "import sys; sys.path.insert(0, '.')\nfrom engine.command.console import console\n"
MANY = "[print('line', n) for n in range(100_000)]"


def child(code: str, **streams: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", BEGIN + code], cwd=ROOT, text=True, **streams)


def printed(*texts: str, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = Console(io.TextIOWrapper(raw, encoding=encoding))
    for text in texts:
        assert out.write(text) == len(text)
    out.flush()
    return raw.getvalue().decode(encoding)


def test_what_a_terminal_would_obey_is_shown():
    assert printed("a\x1b[31mb\x1b]0;title\x07\x9b2J\x08\n") == (
        "a\\x1b[31mb\\x1b]0;title\\x07\\x9b2J\\x08\n"
    )
    assert printed("a\tb\r\nc\n", "\r 5%") == "a\tb\r\nc\n\r 5%"
    assert printed("\udcff ä", encoding="ascii") == "\\udcff \\xe4"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text_is_printed_without_commands(text):
    for encoding in ("utf-8", "ascii", "latin-1"):
        shown = printed(text, encoding=encoding)
        rest = shown.replace("\r", "").replace("\x1b[A", "")
        assert printable(rest) == rest


def test_progress_bars_move_as_ever_and_their_titles_are_escaped():
    plain, wrapped = io.StringIO(), io.StringIO()
    for file, title in ((plain, "a"), (Console(wrapped), "a")):
        for _ in tqdm(range(3), title, file=file, position=1, mininterval=0, ncols=60):
            pass
    moves = [text.getvalue().count("\x1b[A") for text in (plain, wrapped)]
    assert moves[0] == moves[1] > 0
    wrapped = io.StringIO()
    for _ in tqdm(range(3), "\x1b[2Jtitle", file=Console(wrapped), mininterval=0, ncols=60):
        pass
    assert "\x1b" not in wrapped.getvalue() and "\\x1b[2Jtitle" in wrapped.getvalue()


def test_the_stream_answers_what_else_is_asked():
    out = Console(sys.__stdout__)
    assert out.fileno() == sys.__stdout__.fileno() and out.isatty() == sys.__stdout__.isatty()
    assert out.encoding == sys.__stdout__.encoding


def test_streams_that_are_closed_print_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with console():
        print("lost")


@pytest.mark.parametrize("code", ["print('short')", MANY])
def test_a_full_disk_under_stdout_is_said_and_ends_nothing(code):
    with open("/dev/full", "w") as full:
        process = child(f"with console(): {code}", stdout=full, stderr=subprocess.PIPE)
    assert process.returncode == 0
    assert process.stderr == "warning: not all output was written (No space left on device)\n"


@pytest.mark.parametrize("code", ["print('short')", MANY])
def test_a_reader_that_has_gone_ends_nothing(code):
    read, write = os.pipe()
    os.close(read)
    process = child(f"with console(): {code}", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (process.returncode, process.stderr) == (0, "")


def test_stderr_may_be_full_too():
    with open("/dev/full", "w") as full:
        code = "with console(): print('no', file=sys.stderr, flush=True)"
        process = child(code, stdout=subprocess.PIPE, stderr=full)
    assert (process.returncode, process.stdout) == (0, "")


@pytest.mark.parametrize("error", [DataError, ZeroDivisionError])
def test_errors_are_escaped_whosever_they_are(error, capsys):
    def main() -> int:
        raise error("\x1b[31mred")

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\\x1b[31mred" in shown
    assert ("Traceback" in shown) == (error is ZeroDivisionError)


def test_forked_processes_print_escaped():
    code = """
import multiprocessing
with console():
    process = multiprocessing.get_context("fork").Process(target=print, args=("\\x1b[31mred",))
    process.start()
    process.join()
"""
    process = child(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout == "\\x1b[31mred\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "a smaller --batch-size"),
        (
            MemoryError("list:2: 'v1': no memory for a clip"),
            "list:2: 'v1': no memory for a clip; a ",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB"), "DefaultCPUAllocator"),
    ],
)
def test_a_lack_of_memory_is_one_line(error, reason, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit, match="1"):
        run(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: out of memory: {reason}")
    assert line.endswith("a smaller --batch-size or fewer --workers need less")
