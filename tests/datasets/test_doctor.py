"""The doctor on sound and damaged datasets: every planted fault found, none invented."""

import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.doctor import check_lists, examine, open_case
from datasets.extraction import Preparation, extract, start_preparation
from datasets.settings_file import write_lines, write_list
from datasets.videos import read_frames
from scripts.data import doctor
from tests.conftest import SHARED, needs_videos
from tests.datasets.faults import FAULTS, Patient

NAME = "patient"


def scene(seed: int, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """A textured picture that turns and drifts, each seed its own way."""
    rng = np.random.default_rng(seed)
    width, height = size
    noise = rng.uniform(0, 255, (height // 10, width // 10, 3)).astype(np.float32)
    image = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    dx, dy, turn = rng.uniform(1, 2), rng.uniform(-1, 1), rng.choice((-2, 2))
    pictures = []
    for step in range(count):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn * step, 1)
        matrix[:, 2] += (dx * step, dy * step)
        pictures.append(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT))
    return pictures


def prepare(root: Path, videos: dict[str, tuple], preparation: Preparation) -> Patient:
    """Prepares {folder: (part, label, pictures)} as split 1."""
    start_preparation(root / "frames", preparation)
    lists = root / "settings" / NAME
    rows = {"train": [], "val": []}
    for folder, (part, label, pictures) in videos.items():
        count = extract(pictures, root / "frames", folder, preparation)
        rows[part].append((folder, count, label))
    for part, listed in rows.items():
        write_list(lists / f"{part}_rgb_split1.txt", listed)
        write_list(lists / f"{part}_flow_split1.txt", [(f, n - 1, k) for f, n, k in listed])
    write_lines(lists / "classes.txt", sorted({folder.split("/")[0] for folder in videos}))
    return Patient(lists, root / "frames")


def diagnose(root: Path, deep: bool = True, **flags) -> dict[tuple[str, str], str]:
    """(kind, video) -> severity of all findings."""
    case = open_case(NAME, root / "settings", root / "frames")
    found = examine(case, deep, 2, lambda looks, number: looks, **flags)
    return {(finding.kind, finding.video): finding.severity for finding in found}


def plant_all(root: Path, videos: list[str]) -> set[tuple[str, str]]:
    """Plants each fault in a training video of its own; returns what is to be found."""
    patient = Patient(root / "settings" / NAME, root / "frames")
    assert len(videos) >= len(FAULTS) >= 15
    return {plant(patient, video) for plant, video in zip(FAULTS, videos, strict=False)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Videos named as in UCF101: groups 8 and more train, 1 and 2 test."""
    root = tmp_path_factory.mktemp("sound")
    videos = {}
    for label, name in enumerate(("Hop", "Jump")):
        for group in (1, 2, *range(8, 8 + (len(FAULTS) + 1 if label == 0 else 2))):
            part = "val" if group < 8 else "train"
            for clip in (1, 2, 3) if group < 8 else (1,):
                seed = len(videos)
                pictures = scene(seed, 10 + seed % 3, (96, 72))
                videos[f"{name}/v_{name}_g{group:02d}_c{clip:02d}"] = (part, label, pictures)
    prepare(root, videos, Preparation(width=96, height=72))
    return root


def training_videos(root: Path) -> list[str]:
    lines = (root / "settings" / NAME / "train_rgb_split1.txt").read_text().splitlines()
    return [line.rsplit(" ", 2)[0] for line in lines if line.endswith(" 0")]


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_dataset_gives_no_findings(sound, deep):
    assert diagnose(sound, deep) == {}


def test_every_planted_fault_is_found_and_none_invented(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    expected = plant_all(tmp_path, training_videos(sound))
    assert set(diagnose(tmp_path)) == with_consequences(expected)


def with_consequences(expected: set) -> set:
    return expected
