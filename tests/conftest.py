"""Fixtures: golden numbers, filled networks, tiny datasets, scripts run as a user runs them."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models import create_model
from tests.golden import fill

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by nohup or &: tests interrupt commands
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"
FRAMES = SHARED / "parity" / "frames"
needs_frames = pytest.mark.skipif(not FRAMES.is_dir(), reason="needs ../shared/parity/frames")
needs_videos = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs ../shared/data")


def golden(name: str) -> dict:
    """A file of golden numbers."""
    path = GOLDEN / name
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(data)


STATE_DICTS = golden("state_dicts.json.gz")


def filled_state_dict(arch: str) -> dict[str, torch.Tensor]:
    """The golden weights of an architecture at 51 classes."""
    entries, aliases = STATE_DICTS[arch]["entries"], STATE_DICTS[arch]["aliases"]
    return {
        key: torch.from_numpy(np.asarray(fill.weight(aliases.get(key, key), tuple(shape))))
        for key, shape in entries.items()
    }


def filled_model(arch: str) -> torch.nn.Module:
    model = create_model(arch, 51).eval()
    model.load_state_dict(filled_state_dict(arch), strict=True)
    return model


def run_script(script: str, *args: object, cwd: Path = ROOT, check: bool = True):
    """Runs a script in a process of its own; returns it with its stdout and stderr."""
    process = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, args)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    if check and process.returncode != 0:
        raise AssertionError(f"{script} exited {process.returncode}:\n{process.stderr}")
    return process


class TinyDataset:
    """Frame folders and lists of a few small videos: class k is a square at the k-th place."""

    def __init__(self, root: Path, name: str = "toy", classes: int = 3):
        self.name, self.classes = name, classes
        self.frames, self.settings = root / "frames", root / "settings"
        self.lists = self.settings / name

    def add_video(self, folder: str, label: int, count: int, flow_suffix: str = ".jpg") -> None:
        """`count` RGB frames and count - 1 flow images."""
        path = self.frames / folder
        path.mkdir(parents=True)
        rng = np.random.default_rng(count + label)
        for number in range(1, count + 1):
            image = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
            image[8:40, 16 * label : 16 * label + 16] = 200 + number % 50
            cv2.imwrite(str(path / f"img_{number:05d}.jpg"), image)
            if number < count:
                for axis in "xy":
                    _, data = cv2.imencode(".jpg", image[..., 0])
                    name = f"flow_{axis}_{number:05d}{flow_suffix}"
                    (path / name).write_bytes(data.tobytes())

    def write_lists(self, part: str, videos: list[tuple[str, int, int]], split: int = 1) -> None:
        """Lists of (folder, RGB count, label) for both modalities."""
        self.lists.mkdir(parents=True, exist_ok=True)
        for modality, less in (("rgb", 0), ("flow", 1)):
            lines = [f"{folder} {count - less} {label}\n" for folder, count, label in videos]
            (self.lists / f"{part}_{modality}_split{split}.txt").write_text("".join(lines))

    @property
    def flags(self) -> list[str]:
        """Command-line flags that name it."""
        return [
            *("--dataset", self.name),
            *("--frames", str(self.frames)),
            *("--settings", str(self.settings)),
        ]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    """A dataset of 3 classes with long, exact and short videos; read-only."""
    dataset = TinyDataset(tmp_path_factory.mktemp("tiny"))
    counts = {"train": (40, 17, 16, 6), "val": (36, 1 + 16, 2)}
    for part, part_counts in counts.items():
        videos = [
            (f"{part} (#{i}) [{label}]", count, label)
            for label in range(dataset.classes)
            for i, count in enumerate(part_counts)
        ]
        for folder, count, label in videos:
            dataset.add_video(folder, label, count)
        dataset.write_lists(part, videos)
    (dataset.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    return dataset
