"""The benchmarks of networks and tests: their rows hold what was measured, of the right code."""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch

from engine import UsageError
from engine.metrics import MatrixRate
from models.archs import ArchError
from scripts import benchmark
from scripts.benchmarks import harness, memory, model, profiler, test
from tests.conftest import ROOT

ARCH = "rgb_tiny3D16f_bert10_FRMB"
EAGER = ["--speed", "none", "--repeats", "1", "--device", "cpu"]
KERNELS = """onednn_verbose,v1,info,cpu,isa:Intel AVX2
onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,exec_time
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32 dst:f32,scratchpad,,16x3,1.5
onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx2,forward_training,src,a,alg:x,mb2_ic3,4
onednn_verbose,exec,cpu,convolution,jit:avx2,forward_training,src,a,alg:x,mb2_ic3,2.5
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A rate that takes no time to measure; later tests have their number of threads again."""
    number = torch.get_num_threads()
    monkeypatch.setattr(model, "rate_of", lambda device, dtype: MatrixRate(1e12, f"fixed, {dtype}"))
    yield
    torch.set_num_threads(number)


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A clone of this repository, whose newest commit has networks that cannot be made."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("needs the git repository")
    folder = tmp_path_factory.mktemp("clone") / "code"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run([*git, "clone", "-q", "--depth", "1", f"file://{ROOT}", folder], check=True)
    with (folder / "models/__init__.py").open("a") as file:
        file.write("\ndef create_model(*_):\n    raise ValueError('of the commit')\n")
    subprocess.run([*git, "-C", folder, "commit", "-qam", "broken"], check=True)
    return folder


def worktrees(clone) -> int:
    """How many worktrees the clone has, its own among them."""
    command = ["git", "-C", clone, "worktree", "list"]
    return len(subprocess.run(command, capture_output=True).stdout.splitlines())


@pytest.mark.parametrize("name", ["model", "train"])
def test_a_row_holds_what_was_measured(name, tmp_path, capfd):
    file = tmp_path / "out.json"
    flags = [name, *EAGER, "--arch", ARCH, "--batch-sizes", "1", "2", "--crops", "64"]
    flags += ["--threads", "1", "--repeats", "3", "--json", str(file)]
    assert benchmark.main(flags) == 0
    content = json.loads(file.read_text())
    assert content["machine"]["versions"]["torch"] == str(torch.__version__)
    rows = content["benchmarks"][name]["rows"]
    assert [(row["batch"], row["crop"]) for row in rows] == [(1, 64), (2, 64)]
    forward = model.flops_of(ARCH, 64, False)
    flops = model.flops_of(ARCH, 64, True) if name == "train" else forward
    assert (flops > 2 * forward) == (name == "train")
    for row in rows:
        assert (row["arch"], row["variant"], row["x base"]) == (ARCH, "none", 1)
        assert len(row["turns"]) == 3 and row["threads"] == 1
        seconds = sorted(row["turns"])
        shown = [row[key] for key in ("from", "ms/clip", "to")]
        assert shown == pytest.approx([1000 * each for each in seconds])
        assert row["GMACs"] == pytest.approx(forward / 2e9)
        assert row["GFLOP/s"] == pytest.approx(flops / seconds[1] / 1e9)
        assert row["MFU %"] == pytest.approx(row["GFLOP/s"] / 10)  # of 1000
        assert 0 < row["MB/clip"] < row["peak MB"]
    assert ARCH in capfd.readouterr().out


def test_the_presets(capfd):
    """Each runs, or is left out because it means the same as another on this machine."""
    for name in ("model", "train"):
        args = benchmark.build_parser().parse_args([name, "--arch", ARCH, "--repeats", "1"])
        rows = {row["variant"]: row for row in model.main(args)}
        said = capfd.readouterr().out
        assert not [row for row in rows.values() if "error" in row]
        assert rows["exact"]["speed"]["preset"] == "exact"
        for preset in {"fast", "max"} - rows.keys():
            assert f"left out: {preset} is " in said


def test_presets_that_mean_the_same_are_measured_once(capsys):
    plain = {"amp": "off", "channels_last": False, "compile": False}
    meanings = {"exact": plain, "fast": plain | {"channels_last": True}, "max": plain}
    started = {
        harness.Variant(name, ROOT, name): (None, {"speed": meaning | {"preset": name}})
        for name, meaning in meanings.items()
    }
    assert [variant.name for variant in model.without_twins(started)] == ["exact", "fast"]
    assert "max is exact" in capsys.readouterr().out


def test_a_commit_is_measured_with_its_own_code(clone, monkeypatch, tmp_path, capfd):
    """The clone's newest commit fails, and is named; this tree's code beside it does not."""
    with ExitStack() as stack:
        monkeypatch.setattr(harness, "ROOT", clone)
        commit, _ = harness.choose_variants("HEAD", ["none"], stack)
        assert (commit.name, commit.speed) == ("HEAD", "none") and worktrees(clone) == 2
        own = harness.Variant("none", ROOT, "none")
        settings = {"arch": ARCH, "crop": 56, "batch_size": 1, "device": "cpu", "train": False}
        rows = model.measure_variants([commit, own], settings, 1, 1, None)
    assert worktrees(clone) == 1
    assert rows[0]["error"] == f"{ARCH}, HEAD: ValueError: of the commit"
    assert rows[0]["error"] in capfd.readouterr().out
    assert "error" not in rows[1] and len(rows[1]["turns"]) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, UsageError])
def test_the_worktree_is_removed_whatever_happens(clone, monkeypatch, error):
    monkeypatch.setattr(harness, "ROOT", clone)
    with pytest.raises(error), harness.checkout("HEAD") as tree:
        assert (tree / "models/archs.py").exists() and worktrees(clone) == 2
        raise error
    assert not tree.exists() and worktrees(clone) == 1


def test_mistakes_are_told(clone, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="matches 'rgb_tinny.*near: rgb_tiny3D16f"):
        benchmark.main(["model", "--arch", "rgb_tinny*"])
    with pytest.raises(ArchError, match="did you mean rgb_tiny3D16f"):
        benchmark.main(["test", "--arch", "rgb_tinny"])
    with pytest.raises(UsageError, match="flow, and the videos have none"):
        benchmark.main(["test", "--arch", "flow_tiny3D16f"])
    with pytest.raises(UsageError, match="--profile needs one"):
        benchmark.main(["train", "--arch", ARCH, "--profile", str(tmp_path / "trace.json")])
    monkeypatch.setattr(harness, "ROOT", clone)
    with pytest.raises(UsageError, match="--against nothing: .* no such commit"):
        benchmark.main(["model", "--arch", ARCH, "--against", "nothing"])
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="needs this code's git repository"):
        benchmark.main(["model", "--arch", ARCH, "--against", "HEAD"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="needs git"):
        benchmark.main(["model", "--arch", ARCH, "--against", "HEAD"])


def test_patterns_and_names():
    found = harness.match_archs(["*_tiny3D16f", "rgb_tiny3D16f", "rgb_r2plus1d_8f_34_bert10"])
    assert found == ["rgb_tiny3D16f", "flow_tiny3D16f", "rgb_r2plus1d_8f_34_bert10"]


def test_turns_are_interleaved_and_compared_turn_by_turn():
    asked = []
    asks = {name: lambda name=name: asked.append(name) or len(asked) for name in "ab"}
    assert harness.take_turns(asks, 2) == {"a": [3, 5], "b": [4, 6]}
    assert asked == list("ababab")
    # the second turn is slow for both
    compared = harness.compare_turns({"a": [2.0, 20.0, 3.0], "b": [1.0, 5.0, 1.0]})
    assert compared["a"]["x base"] == 1 and compared["b"]["x base"] == 3
    assert [compared["b"][key] for key in ("from", "seconds", "to")] == [1, 1, 5]


def test_a_process_that_ends_is_named():
    with ExitStack() as stack:
        command = [sys.executable, "-c", "input(); print('[1]', flush=True); exit(3)"]
        ask = harness.start_process(command, "the worker", {}, stack)
        assert ask("") == [1]
        with pytest.raises(UsageError, match="the worker: its process ended .exit code 3"):
            ask("")


def test_the_profile(tmp_path, capfd):
    trace = tmp_path / "trace.json"
    assert benchmark.main(["model", *EAGER, "--arch", ARCH, "--profile", str(trace)]) == 0
    assert "aten::addmm" in {e.get("name") for e in json.loads(trace.read_text())["traceEvents"]}
    printed = capfd.readouterr().out
    assert "aten::" in printed and "costliest operators" in printed
    if torch.backends.mkldnn.is_available():
        assert "convolution" in printed.partition("kernels of oneDNN")[2]


def test_kernels_of_onednn():
    convolution, reorder = profiler.onednn_kernels(KERNELS)
    assert convolution == {
        "primitive": "convolution",
        "implementation": "jit:avx2",
        "propagation": "forward_training",
        "shape": "mb2_ic3",
        "calls": 2,
        "ms": 6.5,
        "%": 81.25,
    }
    assert reorder["primitive"] == "reorder" and reorder["%"] == 18.75


def test_whole_tests(tmp_path, capfd):
    file = tmp_path / "out.json"
    flags = ["test", *EAGER, "--arch", ARCH, "--lengths", "40", "--json", str(file)]
    assert benchmark.main(flags) == 0
    rows = json.loads(file.read_text())["benchmarks"]["test"]["rows"]
    (row,) = rows
    (turn,) = row["turns"]
    assert (row["frames"], row["views"], row["x base"]) == (40, 20, 1)
    assert row["s/video"] == turn["video"] and row["first s"] == turn["first"] > 0
    assert row["of passes"] == turn["video"] / turn["passes"]
    assert 100 < row["peak MB"] < 10_000
    assert ARCH in capfd.readouterr().out


def test_a_script_that_fails_is_left_out_by_its_reason(tmp_path):
    data = test.make_lists(tmp_path, ARCH, 20)
    variant = harness.Variant("none", ROOT, "none")
    with pytest.raises(UsageError, match=f"{ARCH}, none: .*no frames of 'benchmark'"):
        test.time_test(data, ARCH, [], 1, variant, 1)


def test_all_writes_one_file(tmp_path, monkeypatch):
    seen = []

    class Fake:
        """A benchmark."""

        add_flags = staticmethod(model.add_flags)
        main = staticmethod(lambda args: seen.append((args.name, args.against)) or [{"row": 1}])

    names = ("model", "train", "test", "loader", "flow")
    monkeypatch.setattr(benchmark, "BENCHMARKS", dict.fromkeys(names, Fake))
    file = tmp_path / "all.json"
    assert benchmark.main(["all", "--against", "HEAD", "--json", str(file)]) == 0
    assert seen == [(name, "HEAD" if name in names[:3] else None) for name in names]
    assert list(json.loads(file.read_text())["benchmarks"]) == list(names)


def test_resident_memory_is_that_of_the_script(tmp_path):
    script, peak = tmp_path / "script.py", tmp_path / "peak.txt"
    script.write_text("import sys\nbytearray(200_000_000)\nprint(sys.argv[1:])\nsys.exit(4)\n")
    command = [sys.executable, memory.__file__, peak, script, "--flag", "1"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 4 and ran.stdout == "['--flag', '1']\n"
    assert 200e6 < float(peak.read_text()) < 400e6
