"""How every command begins and ends, as one who has just arrived meets it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# They run the code of another commit, and are started by scripts/benchmark.py alone.
WORKERS = {"scripts/benchmarks/worker.py", "scripts/benchmarks/memory.py"}
# examples/ imports nothing of this project, for readers who have but an exported file.
FOLDERS = (".", "scripts", "docs")
COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for folder in FOLDERS
    for path in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
COMMANDS = [command for command in COMMANDS if command not in WORKERS]
every_command = pytest.mark.parametrize("command", COMMANDS)
ACTIVATE = "source .venv/bin/activate (make setup makes that environment)"


def test_the_commands_are_found():
    assert {"two_stream2.py", "scripts/demo.py", "scripts/eval/combined_demo.py"} <= {*COMMANDS}


@every_command
def test_it_begins_with_start_and_ends_with_run(command):
    body = ast.parse((ROOT / command).read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
             for node in imports]  # fmt: skip
    first = next(name for name in named if name.split(".")[0] not in sys.stdlib_module_names)
    assert first == "engine.command.start", "`engine.command.start` comes before all packages"
    assert ast.unparse(body[-1]) == "if __name__ == '__main__':\n    run(main)"


@every_command
def test_a_missing_package_is_one_line_that_names_the_environment(command):
    """A Python without any package: what a new terminal has before `activate`."""
    process = subprocess.run(
        [sys._base_executable, "-S", str(ROOT / command), "--help"], capture_output=True, text=True
    )
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: No module named '") and line.endswith(ACTIVATE), line


@every_command
def test_ctrl_c_while_modules_load_prints_no_traceback(command, tmp_path):
    for package in ("numpy", "torch", "tabulate", "cv2", "tqdm", "matplotlib"):
        (tmp_path / f"{package}.py").write_text(
            "import os, signal, time\n"
            "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(20)\n"
            "except BaseException: pass\n"  # as some packages do
        )
    process = subprocess.run(
        [sys.executable, str(ROOT / command), "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert (process.returncode, process.stderr) == (130, "interrupted\n")


def script(folder: Path, body: str, *argv: str) -> subprocess.CompletedProcess:
    """Runs a script that looks like ours, but for where it lies."""
    path = folder / "script.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom engine.command.start import run\n"
        f"def main():\n    {body}\nrun(main)\n"
    )
    return subprocess.run([sys.executable, path, *argv], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 3", 3, ""),
        ("open('/no/such')", 1, "error: [Errno 2] No such file or directory: '/no/such'\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise KeyboardInterrupt('to resume: x')", 130, "interrupted; to resume: x\n"),
    ],
)
def test_what_a_command_ends_with(tmp_path, body, code, said):
    process = script(tmp_path, body)
    assert (process.returncode, process.stderr) == (code, said)


def test_a_package_that_is_missed_late_is_one_line_too(tmp_path):
    process = script(tmp_path, "import no_such_package")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 1 and line.startswith("error: No module named 'no_such_package'")
    process = script(tmp_path, "import engine.no_such_room")  # a mistake of ours
    assert "Traceback" in process.stderr and "activate" not in process.stderr


def test_programs_of_others_keep_their_own_ctrl_c(tmp_path):
    process = script(
        tmp_path,
        "import signal; print(signal.getsignal(2) is signal.default_int_handler, "
        "sys.excepthook is sys.__excepthook__)",
    )
    assert process.stdout == "True True\n"


def test_a_wrong_value_is_one_line(tmp_path):
    for argv in (["--epochs", "0"], ["--no-such-flag"], ["--amp", "often"]):
        process = subprocess.run(
            [sys.executable, ROOT / "two_stream2.py", *argv], capture_output=True, text=True
        )
        (line,) = process.stderr.splitlines()
        assert process.returncode == 2 and line.startswith("error: ") and argv[0] in line
