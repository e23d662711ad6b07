"""Ctrl-C in preparing and caching: no traceback, and the printed command resumes."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.tokens import encode
from scripts import cache_tokens
from tests.conftest import ROOT
from tests.scripts.test_bad_videos import write_video

ARCH = "rgb_tiny3D16f"


def interrupted(argv: list[str], begun) -> str:
    """Starts a command, presses Ctrl-C once `begun()`; returns the command that resumes it."""
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group, as a terminal makes one
    )
    while not begun() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    *_, last = err.splitlines()
    assert last.startswith("interrupted; this command resumes: python "), err
    return last.partition(": ")[2]


def finish(command: str) -> subprocess.CompletedProcess:
    python, *argv = shlex.split(command)
    assert python == "python"
    return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True)


def test_preparing(tmp_path):
    for number in range(8):
        part = "set1" if number % 2 else "set2"
        write_video(tmp_path / f"videos/a b/{part}_{number}.mp4", 300, (320, 240))
    frames = tmp_path / "frames"
    argv = ["scripts/data/prepare_videos.py", str(tmp_path / "videos"), "--dataset", "toy"]
    argv += ["--frames", str(frames), "--settings", str(tmp_path / "settings"), "-j", "2"]
    argv += ["--train", "set1_*", "--val", "set2_*"]
    command = interrupted(argv, lambda: any(frames.glob(".unfinished/*/*/*.jpg")))
    assert shlex.split(command)[1:] == argv
    assert not (frames / ".unfinished").exists()
    assert not any((tmp_path / "settings").rglob("*.txt"))
    process = finish(command)
    assert process.returncode == 0 and "4 for training, 4 for testing" in process.stdout


@pytest.fixture
def many(tmp_path) -> list[str]:
    """Flags of a dataset of forty videos, and of a cache of them."""
    for number in range(40):
        folder = tmp_path / f"frames/v{number}"
        folder.mkdir(parents=True)
        for frame in range(1, 21):
            image = np.full((128, 170, 3), number, np.uint8)
            cv2.imwrite(str(folder / f"img_{frame:05d}.jpg"), image)
    lists = tmp_path / "settings/toy"
    lists.mkdir(parents=True)
    lines = [f"v{number} 20 {number % 2}\n" for number in range(40)]
    (lists / "train_rgb_split1.txt").write_text("".join(lines[:30]))
    (lists / "val_rgb_split1.txt").write_text("".join(lines[30:]))
    argv = ["--dataset", "toy", "--frames", str(tmp_path / "frames"), "--arch", ARCH, "-j", "0"]
    argv += ["--settings", str(tmp_path / "settings"), "--cache", str(tmp_path / "cache")]
    return [*argv, "--weights", "none", "--views", "4"]


def test_caching(many, tmp_path):
    stored = lambda: len([*Path(tmp_path / "cache").glob("train/*.npy")])  # noqa: E731
    command = interrupted(["scripts/cache_tokens.py", *many], lambda: stored() > 1)
    there = stored()
    assert 1 < there < 30
    process = finish(command)
    assert process.returncode == 0, process.stderr
    assert f"{there} videos are there already" in process.stdout and stored() == 30


def test_caching_prints_lines_where_there_is_no_terminal(many, monkeypatch, capsys):
    monkeypatch.setattr(encode, "LINE_SECONDS", 0.0)
    assert cache_tokens.main([*many, "--clips", "single", "--no-ten-crop"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" s left")]
    assert len(lines) == 40
    assert lines[0].startswith("cache: 4 of 130 clips, ") and lines[-1].endswith(" 0 s left")
