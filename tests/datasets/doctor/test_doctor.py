"""The doctor on sound and damaged datasets: every planted fault found, none invented."""

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.doctor import check_lists, examine, open_checked
from datasets.files import write_lines
from datasets.preparation import Preparation, start_preparation
from datasets.prepare.extract import extract
from datasets.prepare.jobs import write_list
from datasets.records import group_of
from datasets.sources.jpeg import Header
from datasets.sources.reader import read_header
from datasets.sources.videos import read_frames
from scripts.data import doctor
from tests.conftest import SHARED, needs_videos
from tests.datasets.doctor.faults import FAULTS, Patient, copy_saved_again

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
    case = open_checked(NAME, root / "settings", root / "frames")
    found = examine(case, deep, 2, **flags)
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
    assert set(diagnose(tmp_path)) == expected


def test_the_quick_part_needs_names_alone(sound, tmp_path):
    """What is found without opening a file is the same when the files are empty."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    plant_all(tmp_path, training_videos(sound))
    full = {f for f in check_lists(open_checked(NAME, tmp_path / "settings", tmp_path / "frames"))}
    assert len({finding.kind for finding in full}) >= 14
    for path in (tmp_path / "frames").rglob("*.jpg"):
        path.write_bytes(b"")
    case = open_checked(NAME, tmp_path / "settings", tmp_path / "frames")
    assert set(check_lists(case)) == full
    assert {f.kind for f in check_lists(dataclasses.replace(case, modalities=("rgb",)))} < {
        finding.kind for finding in full
    }


def run(root: Path, *flags) -> tuple[int, list[str]]:
    lines: list[str] = []
    places = ["--settings", str(root / "settings"), "--frames", str(root / "frames")]
    return doctor.main(["-d", NAME, *places, *map(str, flags)], lines.append), lines


def test_report_exit_codes_and_json(sound, tmp_path, capsys):
    report = tmp_path / "report.json"
    code, lines = run(sound, "--json", report)
    assert code == 0 and len(lines) == 1 and lines[0].endswith("0 errors, 0 warnings, 0 info")
    assert json.loads(report.read_text())["findings"] == []
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    patient = Patient(tmp_path / "settings" / NAME, tmp_path / "frames")
    for video in training_videos(sound)[:6]:
        patient.edit("rgb", video, "{folder} 99 {label}")
    patient.edit("rgb", "Jump/v_Jump_g08_c01", None)
    code, lines = run(tmp_path, "--json", report, "--split", 1)
    assert code == 1
    assert lines[0] == "error: count-above (6 videos)"
    assert "train_rgb_split1.txt:1: 'Hop/v_Hop_g08_c01' should have 99 rgb images" in lines[1]
    assert lines[2].startswith("    fix: sed -i '1s|.*|Hop/v_Hop_g08_c01 1")
    assert "  ... and 3 more" in lines and "warning: one-modality" in lines
    content = json.loads(report.read_text())
    assert content["counts"] == {"error": 6, "warning": 1, "info": 0}
    assert len(content["findings"]) == 7
    assert {"severity", "kind", "video", "message", "mend"} == set(content["findings"][0])
    for flags in (["--split", 7], ["--settings", tmp_path / "nowhere"]):
        assert run(tmp_path, *flags, "--json", report)[0] == 2
        assert "could not check" in capsys.readouterr().err
        assert json.loads(report.read_text())["findings"][0]["kind"] == "not-looked"


def test_the_commands_that_mend_a_list_do(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    patient = Patient(tmp_path / "settings" / NAME, tmp_path / "frames")
    first, second, third = training_videos(sound)[:3]
    odd = "Hop/#1 & it's | a (test)"
    (tmp_path / "frames" / first).rename(tmp_path / "frames" / odd)
    for modality in ("rgb", "flow"):
        patient.edit(modality, first, f"{odd} 3 {{label}}")
        patient.add(modality, patient.line(modality, second), "val")
    patient.add("rgb", patient.line("rgb", third), "train")
    case = open_checked(NAME, tmp_path / "settings", tmp_path / "frames")
    found = check_lists(case)
    assert {f.kind for f in found} == {"count-below", "train-and-test", "listed-twice"}
    for finding in found:
        subprocess.run(finding.fix, shell=True, check=True)
    assert diagnose(tmp_path, deep=False) == {}
    assert patient.line("rgb", odd).startswith(odd)


NAMES_OF_ONE_GROUP = {
    "v_ApplyEyeMakeup_g08_c01": "v_ApplyEyeMakeup_g08_c05",
    "April_09_brush_hair_u_nm_np1_ba_goo_0": "April_09_brush_hair_u_cm_np1_fr_med_2",
    "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_ba_med_0": (
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_le_bad_11"
    ),
    "set1_17_3_0": "set1_14_3_1",
    "walk_seq07_2": "walk_seq07_3",
}


@pytest.mark.parametrize(("first", "second"), NAMES_OF_ONE_GROUP.items())
def test_groups_are_read_off_names(first, second):
    assert group_of(f"some/{first}")[2] == group_of(f"other/{second}")[2]


def test_other_names_have_no_group():
    for name in ("img_001", "a_b_c", "set1", "vid_game_1", "train_003", "2021_05_17_3"):
        assert group_of(name) is None
    others = ("v_ApplyEyeMakeup_g09_c01", "set2_17_3_0", "set1_17_4_0", "walk_seq08_2")
    for name in others:
        assert group_of(name)[2] not in {group_of(known)[2] for known in NAMES_OF_ONE_GROUP}


def test_a_group_of_ones_own(sound):
    assert diagnose(sound, deep=False, group=re.compile(r"_c(\d+)$")) == {
        ("group-split", f"{name}/v_{name}_g{group:02d}_c01"): "error"
        for name in ("Hop", "Jump")
        for group in (1, 2)
    }


@pytest.mark.parametrize("quality", [20, 50, 75, 80, 90, 95, 100])
def test_jpeg_quality_is_read_off_the_tables(tmp_path, quality):
    path = tmp_path / "image.jpg"
    cv2.imwrite(str(path), scene(0, 1, (64, 48))[0], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert read_header(path) == Header((64, 48), quality, grey=False)


@pytest.mark.parametrize("change", ["quality 30", "half size", "trimmed"])
def test_copies_are_found_however_they_were_saved(sound, tmp_path, change):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    patient = Patient(tmp_path / "settings" / NAME, tmp_path / "frames")
    video = training_videos(sound)[0]
    assert copy_saved_again(patient, video) == ("duplicate", "Hop/copied")
    if change == "trimmed":
        for pattern in ("img_*", "flow_x*", "flow_y*"):
            patient.files("Hop/copied", pattern)[-1].unlink()
    elif change == "half size":
        patient.rewrite("Hop/copied", "img_*", lambda image: cv2.resize(image, (48, 36)))
    else:
        patient.rewrite("Hop/copied", "img_*", lambda image: image, quality=30)
    assert diagnose(tmp_path, deep=False)["duplicate", "Hop/copied"] == "error"


def test_still_videos_have_constant_flow(tmp_path):
    """Neither a still picture nor a video that stands still is a fault."""
    rng = np.random.default_rng(0)
    videos = {}
    for number in range(4):
        image = scene(number, 1, (96, 72))[0]
        noise = rng.normal(0, 2 * (number % 2), (8, *image.shape))
        pictures = np.clip(image + noise, 0, 255).astype(np.uint8)
        videos[f"a/v{number}"] = (("train", "val")[number // 2], 0, pictures)
    prepare(tmp_path, videos, Preparation(width=96, height=72))
    assert diagnose(tmp_path) == {}


def test_conventions_of_whole_lists_are_no_errors(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    for part in ("train", "val"):
        for video in (tmp_path / "settings" / NAME / f"{part}_rgb_split1.txt").open():
            folder, count, label = video.rsplit(" ", 2)
            line = f"{{folder}} {count} {{label}}"
            Patient(tmp_path / "settings" / NAME, tmp_path / "frames").edit(
                "flow", folder, line, part
            )
    assert diagnose(tmp_path, deep=False) == {("count-convention", ""): "info"}


@needs_videos
def test_planted_faults_in_real_videos(tmp_path):
    """UT-Interaction, 24 frames each: nothing found at first, then just what was planted."""
    preparation = Preparation(width=170, height=128)
    paths = sorted((SHARED / "data" / "ut_interaction").glob("*/*.avi"))
    train = [path for path in paths if path.name.startswith("set1")]
    train = [path for place in range(6) for path in train[place::10]]  # six of each class
    val = [path for path in paths if path.name.startswith("set2")][::3]
    classes = sorted({path.parent.name for path in paths})
    videos = {}
    for part, chosen in (("train", train), ("val", val)):
        for path in chosen:
            pictures = itertools.islice(read_frames(path, (170, 128)), 20, 44)
            folder = f"{path.parent.name}/{path.stem}"
            videos[folder] = (part, classes.index(path.parent.name), pictures)
    prepare(tmp_path, videos, preparation)
    assert diagnose(tmp_path) == {}
    folders = [folder for folder in videos if videos[folder][0] == "train"]
    expected = plant_all(tmp_path, folders)
    assert set(diagnose(tmp_path)) == expected
