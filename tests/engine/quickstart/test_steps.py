"""Steps: done once, done again where something changed, resumed, and ended with their parent."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.files import DataError
from engine import UsageError
from engine.quickstart.steps import Plan, Step, run_command, sole_owner
from tests.conftest import ROOT


def writing(path: Path, text: str = "x", code: int = 0, say: str = "") -> tuple[str, ...]:
    """A command that writes a file, prints, and exits."""
    lines = f"from pathlib import Path\nPath({str(path)!r}).write_text({text!r})\n"
    return ("-c", f"{lines}print({say!r})\nraise SystemExit({code})")


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path / "own" / "plan.json")


@pytest.fixture
def step(tmp_path):
    (tmp_path / "in").write_text("a")
    out = tmp_path / "out"
    return Step("one", writing(out), (tmp_path / "in",), (out,))


def test_a_finished_step_is_known_by_command_inputs_and_outputs(plan, step, tmp_path):
    shown = []
    assert not plan.is_finished(step)
    assert plan.carry_out(step, shown.append) == 0
    assert shown[0].startswith("$ python -c ")
    again = Plan(plan.path)
    assert again.is_finished(step)
    assert not again.is_finished(replace(step, command=writing(tmp_path / "out", "y")))
    assert not again.is_finished(replace(step, name="two"))
    (tmp_path / "in").write_text("b")
    assert not again.is_finished(step)
    (tmp_path / "in").write_text("a")
    assert again.is_finished(step)
    (tmp_path / "out").unlink()
    assert not again.is_finished(step)
    (tmp_path / "in").unlink()
    assert step.key() is None


def test_a_failed_step_is_not_finished(plan, step, tmp_path):
    failing = replace(step, command=writing(tmp_path / "out", code=3))
    assert plan.carry_out(failing, print) == 3
    assert not Plan(plan.path).is_finished(failing)


def test_outputs_alone_tell_of_a_step_without_key(plan, step):
    keyless = replace(step, reads=(), keyless=True)
    assert not plan.is_finished(keyless)
    step.writes[0].touch()
    assert plan.is_finished(keyless)


def test_videos_may_be_left_out_where_the_rest_was_written(plan, step, tmp_path):
    say = "left out: hug/a.avi: decoding failed after frame 28"
    step = replace(step, command=writing(tmp_path / "out", code=1, say=say))
    assert plan.carry_out(step, print) == 1
    step = replace(step, leaves_out=True)
    assert plan.carry_out(step, print) == 0
    assert Plan(plan.path).left_out() == ["hug/a.avi: decoding failed after frame 28"]
    nothing_written = replace(step, command=("-c", f"print({say!r}); raise SystemExit(1)"))
    assert plan.carry_out(nothing_written, print) == 1
    other_error = replace(step, command=writing(tmp_path / "out", code=1))
    assert plan.carry_out(other_error, print) == 1


def test_only_what_the_same_command_began_is_resumed(plan, step, tmp_path):
    owned, shown = tmp_path / "cache", []
    fails = ("-c", "import sys; print(sys.argv[1:]); raise SystemExit(1)")
    step = replace(step, command=fails, resume=("--go-on",), owns=owned)
    owned.mkdir()
    (owned / "someone's").touch()
    plan.carry_out(step, shown.append)
    assert shown[1] == "[]" and (owned / "someone's").exists()  # never begun here: left alone
    plan.carry_out(step, shown.append)
    assert shown[3] == "['--go-on']" and owned.exists()
    (tmp_path / "in").write_text("changed")
    plan.carry_out(step, shown.append)
    assert shown[5] == "[]" and not owned.exists()


def test_one_quickstart_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from engine.quickstart.steps import sole_owner\n"
        f"with sole_owner(Path({str(tmp_path / 'own')!r})): print('mine', flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(UsageError, match="another quickstart works in"):
        with sole_owner(tmp_path / "own"):
            pass
    other.kill()
    other.wait()
    with sole_owner(tmp_path / "own"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process of its parent's end")
def test_a_command_ends_with_the_quickstart_that_was_killed():
    sleeping = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    code = (
        "from engine.quickstart.steps import run_command\n"
        f"run_command(['-c', {sleeping!r}], lambda line: print(line, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, text=True)
    command = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{command}").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{command}/stat").read_text().split()[2] == "Z":
            break  # it has ended, and waits for whoever adopted it
        time.sleep(0.05)
    assert time.monotonic() < deadline


def test_ctrl_c_waits_for_the_command():
    code = (
        "import signal\n"
        "from engine.quickstart.steps import run_command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "catch = 'import time\\ntry:\\n print(1); time.sleep(600)\\n'\n"
        "catch += 'except KeyboardInterrupt:\\n print(\"saved\"); raise SystemExit(130)'\n"
        "print(run_command(['-c', catch], lambda line: print(line, flush=True)), flush=True)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=-1, text=True, start_new_session=True
    )
    assert parent.stdout.readline() == "1\n"
    os.killpg(parent.pid, signal.SIGINT)
    out, _ = parent.communicate(timeout=60)
    assert out == "saved\n(130, ['1', 'saved'])\n"


def test_output_that_is_no_text_is_shown(tmp_path):
    code, lines = run_command(["-c", "import os; os.write(1, b'\\xff\\n')"], print)
    assert code == 0 and lines == ["\ufffd"]


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(DataError, match="plan.json"):
        Plan(tmp_path / "plan.json")
