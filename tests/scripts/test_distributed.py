"""Several processes on CPUs (gloo): the same losses and scores as one, and a common end."""

from engine.command.start import run

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import two_stream_bert2
from engine.training.folder import owned
from scripts import cache_tokens
from scripts.eval import combined_demo, spatial_demo3D, spatial_demo_bert
from tests.conftest import ROOT

PLAIN, BERT = "rgb_tiny3D16f", "rgb_tiny3D16f_bert10_FRMB"
# A server that has imported everything and computed nothing: each process forks from it at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.scripts.test_distributed"])
SCRIPTS = {
    "train": two_stream_bert2.main,
    "multi": spatial_demo3D.main,
    "single": spatial_demo_bert.main,
    "fused": combined_demo.main,
    "cache": cache_tokens.main,
}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_as_one_of(script, argv, rank, world_size, port, printed, dropout) -> None:
    """Runs a script as torchrun would: its place among the processes is in the environment."""
    descriptor = os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    if not dropout:
        nn.Dropout.forward = lambda self, x: x
    if world_size > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
        place |= {"LOCAL_WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {key: str(value) for key, value in place.items()}
    run(lambda: SCRIPTS[script](argv))


def start(script: str, argv: list, printed: Path, processes: int = 1, dropout: bool = False):
    port = free_port()
    started = []
    for rank in range(processes):
        out = printed.with_name(f"{printed.name}_{rank}")
        args = (script, list(map(str, argv)), rank, processes, port, out, dropout)
        started.append(CONTEXT.Process(target=run_as_one_of, args=args))
        started[-1].start()
    return started


def join(processes: list) -> None:
    """Waits for all to end; none outlives the test."""
    deadline = time.monotonic() + 120
    for process in processes:
        process.join(timeout=max(0, deadline - time.monotonic()))
        process.kill()
        process.join()


def finish(script, argv, printed: Path, processes: int = 1, **options) -> str:
    """Runs a script to its end; returns what its first process printed."""
    started = start(script, argv, printed, processes, **options)
    join(started)
    text = printed.with_name(f"{printed.name}_0").read_text()
    assert [process.exitcode for process in started] == [0] * processes, text
    return text


def training_flags(tiny, output: Path, batch: int, iter_size: int, *more: object) -> list:
    flags = ["--arch", PLAIN, "--output", output, "-b", batch, "--iter-size", iter_size]
    return [*tiny.flags, *flags, "--lr", "1e-4", "--epochs", 2, "--workers", 0, *more]


def folder(tiny, output: Path, arch: str = PLAIN) -> Path:
    return output / f"{tiny.name}_{arch}_split1"


def log_of(run_folder: Path) -> list[dict]:
    return [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]


def losses(run_folder: Path) -> list[float]:
    return [line[part]["loss"] for line in log_of(run_folder) for part in ("train", "val")]


@pytest.mark.parametrize(
    ("one", "several", "processes"),
    [
        pytest.param((4, 2), (2, 2), 2, id="half the batch"),
        pytest.param((4, 2), (4, 1), 2, id="half the accumulation"),
        pytest.param((10, 1), (5, 1), 2, id="an incomplete last batch"),
        pytest.param((5, 1), (1, 1), 5, id="a last batch of two videos for five"),
    ],
)
def test_the_same_effective_batch_gives_the_same_losses(tiny, tmp_path, one, several, processes):
    """Batch norms frozen and dropout off."""
    for name, (batch, iter_size), number in (("one", one, 1), ("several", several, processes)):
        flags = training_flags(tiny, tmp_path / name, batch, iter_size, "--freeze-bn")
        text = finish("train", flags, tmp_path / f"out_{name}", number)
        assert f"{batch} x {iter_size} x {number} = {batch * iter_size * number}" in text
    first, second = (losses(folder(tiny, tmp_path / name)) for name in ("one", "several"))
    np.testing.assert_allclose(second, first, rtol=1e-5)
    assert first[0] != pytest.approx(first[2], rel=1e-3)  # it learns


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A network of each modality after a short training by two processes, dropout on."""
    output = tmp_path_factory.mktemp("trained")
    for arch in (BERT, BERT.replace("rgb", "flow")):
        flags = training_flags(tiny, output, 2, 1, "--arch", arch)
        finish("train", flags, output / arch, 2, dropout=True)
    return output


def test_tests_give_the_same_scores_for_any_number_of_processes(tiny, trained, tmp_path):
    archs = {
        "multi": ["--arch", BERT],
        "single": ["--arch", BERT],
        "fused": ["--arch_rgb", BERT, "--arch_flow", BERT.replace("rgb", "flow")],
    }
    for script, names in archs.items():
        scores, printed = {}, {}
        for processes in (1, 2):
            results = tmp_path / f"{script}_{processes}"
            flags = [*tiny.flags, *names, "--runs", trained, "--results", results, "-j", 0]
            printed[processes] = finish(
                script, flags, tmp_path / f"out_{script}{processes}", processes
            )
            (file,) = results.glob("*.npz")
            with np.load(file) as content:
                scores[processes] = {key: content[key] for key in content.files}
        assert scores[1].keys() == scores[2].keys()
        for key, values in scores[1].items():
            np.testing.assert_array_equal(values, scores[2][key])
        tops = [re.findall(r"top-1 [\d.]+ %", text) for text in printed.values()]
        assert tops[0] and tops[0] == tops[1]


def test_a_folder_of_another_training_is_refused_by_all(tiny, tmp_path):
    """All processes of a run share the main one's lock."""
    argv = training_flags(tiny, tmp_path / "runs", 2, 1)
    with owned(folder(tiny, tmp_path / "runs")):
        processes = start("train", argv, tmp_path / "out", 2)
        join(processes)
    assert [process.exitcode for process in processes] == [1, 1]
    for rank in range(2):
        assert "is another training's: process" in (tmp_path / f"out_{rank}").read_text()
    assert list((tmp_path / "runs").iterdir()) == []


def test_evaluation_of_the_best_model_is_the_same(tiny, trained, tmp_path):
    """Nine validation videos in batches of 2: one process has three of them, one two."""
    printed = []
    for processes in (1, 2, 3):
        flags = training_flags(tiny, trained, 2, 1, "--arch", BERT, "-e")
        text = finish("train", flags, tmp_path / f"out{processes}", processes)
        printed.append(text.splitlines()[-1])
    assert "9 videos" in printed[0] and printed[0] == printed[1] == printed[2]


def test_a_run_cut_and_continued_by_as_many_processes_is_the_same(tiny, tmp_path):
    """Dropout on: the random states of both processes are kept."""
    common = ["--arch", BERT, "--seed", 3]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish("train", training_flags(tiny, whole, 2, 1, *common), tmp_path / "a", 2, dropout=True)
    flags = training_flags(tiny, cut, 2, 1, *common, "--save-steps", 1)
    processes = start("train", flags, tmp_path / "b", 2, dropout=True)
    wait_for(folder(tiny, cut, BERT) / "last.pth.tar", processes)
    for process in processes:
        process.kill()
        process.join()
    finish("train", [*flags, "-c", "last"], tmp_path / "c", 2, dropout=True)
    for name in ("last", "model_best"):
        first, second = (
            torch.load(folder(tiny, run, BERT) / f"{name}.pth.tar", weights_only=True)["state_dict"]
            for run in (whole, cut)
        )
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert losses(folder(tiny, cut, BERT)) == losses(folder(tiny, whole, BERT))


def wait_for(path: Path, processes: list) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline and all(p.exitcode in (None, 0) for p in processes)
        time.sleep(0.01)


@pytest.mark.parametrize(("begun", "continued"), [((4, 1), (2, 2)), ((2, 2), (4, 1))])
def test_another_number_of_processes_goes_on(tiny, tmp_path, begun, continued):
    """Stopped after 2 of 3 steps of an epoch; without randomness the losses are a whole run's."""
    whole = training_flags(tiny, tmp_path / "whole", 4, 1, "--freeze-bn")
    finish("train", whole, tmp_path / "a")
    cut = training_flags(tiny, tmp_path / "cut", begun[0], 1, "--freeze-bn", "--save-steps", 2)
    for place, process in enumerate(
        start("train", [*cut, "--epochs", 200], tmp_path / "b", begun[1])
    ):
        if place == 0:
            wait_for(folder(tiny, tmp_path / "cut") / "last.pth.tar", [process])
        process.kill()
        process.join()
    content = torch.load(folder(tiny, tmp_path / "cut") / "last.pth.tar", weights_only=True)
    assert content["progress"]["result"]["videos"] in (8, 12) or content["epoch"] > 0
    more = training_flags(tiny, tmp_path / "cut", continued[0], 1, "--freeze-bn", "-c", "last")
    finish("train", more, tmp_path / "c", continued[1])
    first, second = (losses(folder(tiny, tmp_path / name)) for name in ("whole", "cut"))
    np.testing.assert_allclose(second, first, rtol=1e-5)


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(tiny, tmp_path):
    flags = training_flags(tiny, tmp_path / "runs", 2, 1, "--epochs", 500, "--workers", 1)
    processes = start("train", flags, tmp_path / "out", 2)
    wait_for(folder(tiny, tmp_path / "runs") / "last.pth.tar", processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    join(processes)
    assert [process.exitcode for process in processes] == [143, 143]
    printed = (tmp_path / "out_0").read_text()
    assert "saved: " in printed
    assert "continue with: torchrun --nproc_per_node=2 " in printed
    assert (tmp_path / "out_1").read_text() == ""  # only the first one prints
    content = torch.load(folder(tiny, tmp_path / "runs") / "last.pth.tar", weights_only=True)
    assert len(content["random_states"]) == 2


def test_a_killed_process_ends_the_others_with_a_checkpoint(tiny, tmp_path):
    flags = training_flags(tiny, tmp_path / "runs", 2, 1, "--epochs", 500, "--save-freq", 1000)
    processes = start("train", flags, tmp_path / "out", 2)
    wait_for(folder(tiny, tmp_path / "runs") / "last.pth.tar", processes)
    before = torch.load(folder(tiny, tmp_path / "runs") / "last.pth.tar", weights_only=True)
    time.sleep(0.5)
    processes[1].kill()
    join(processes)
    assert processes[0].exitcode == 1
    assert "process 0 of 2: error: another process has ended" in (tmp_path / "out_0").read_text()
    after = torch.load(folder(tiny, tmp_path / "runs") / "last.pth.tar", weights_only=True)
    assert (after["epoch"], after["progress"] is not None) > (before["epoch"], False)


def torchrun(*argv: object) -> list[str]:
    """The command of torchrun, in this interpreter, on a port of its own."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    return [sys.executable, *launch, *map(str, argv)]


def test_torchrun_one_failing_process_ends_all(tiny, tmp_path):
    """The second process meets an unreadable video; it alone says so."""
    frames = tmp_path / "frames"
    shutil.copytree(tiny.frames, frames)
    for image in (frames / "train (#0) [1]").glob("img_*.jpg"):
        image.write_bytes(b"nothing")
    flags = training_flags(tiny, tmp_path / "runs", 2, 1, "--frames", frames)
    command = torchrun(ROOT / "two_stream_bert2.py", *flags)
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode != 0
    said = re.findall(r"^process (\d) of 2: error: .*train \(#0\) \[1\].*", process.stderr, re.M)
    assert len(said) == 1
    assert process.stdout.count("effective batch") == 1


def test_torchrun_restarts_from_last_by_itself(tiny, tmp_path):
    """One process dies once, after the first epoch; torchrun starts both again."""
    flags = training_flags(tiny, tmp_path / "runs", 2, 1, "-c", "last")
    script = tmp_path / "dies_once.py"
    script.write_text(DIES_ONCE.format(root=str(ROOT), mark=str(tmp_path / "mark")))
    command = torchrun("--max-restarts=2", script, *flags)
    process = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert process.returncode == 0, process.stderr
    assert "no checkpoint in" in process.stdout and "the training begins" in process.stdout
    assert "continuing from" in process.stdout and ": 1 epochs done" in process.stdout
    assert [line["epoch"] for line in log_of(folder(tiny, tmp_path / "runs"))] == [1, 2]


DIES_ONCE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "{root}")
import two_stream_bert2
from engine.command.start import run
from engine.training.checkpoints import CheckpointManager

real = CheckpointManager.save_epoch

def save_and_die(self, *args):
    real(self, *args)
    mark = Path("{mark}")
    if os.environ["RANK"] == "1" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointManager.save_epoch = save_and_die
run(two_stream_bert2.main)
"""
