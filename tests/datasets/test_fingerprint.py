"""Fingerprints: equal for equal data, and differences said in words."""

import dataclasses
import json
import shutil

import av
import cv2
import numpy as np
import pytest
import torch

from datasets import create_dataset
from datasets.fingerprint import compare_fingerprints, describe, fingerprint
from datasets.preparation import Preparation, start_preparation
from tests.conftest import TinyDataset


@pytest.fixture
def toy(tmp_path) -> TinyDataset:
    dataset = TinyDataset(tmp_path)
    videos = [(f"v{n}", 8 + n, n % 3) for n in range(6)]
    for folder, count, label in videos:
        dataset.add_video(folder, label, count)
    dataset.write_lists("train", videos[:3])
    dataset.write_lists("val", videos[3:])
    (dataset.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    return dataset


def print_of(toy, modality="rgb", parts=("train", "val")) -> dict:
    return fingerprint(create_dataset("toy", 1, modality, toy.settings, toy.frames, parts))


def edit(toy, name, old, new):
    path = toy.lists / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_it_is_one_line_of_what_was_trained_on_and_is_stored_as_plain_values(toy, tmp_path):
    first = print_of(toy)
    assert describe(first) == (
        f"data {first['hash']}: toy split 1 rgb, 3 training videos (27 images), 3 validation "
        "videos (36 images), 3 classes, 64x48, JPEG quality 95"
    )
    assert len(first["hash"]) == 12
    torch.save(first, tmp_path / "print.pt")
    assert torch.load(tmp_path / "print.pt", weights_only=True) == first
    assert json.loads(json.dumps(first)) == first
    assert print_of(toy) == first and compare_fingerprints(first, print_of(toy)) == []


def test_a_test_list_alone_is_compared_with_that_of_the_training(toy):
    there, here = print_of(toy), print_of(toy, parts=("val",))
    assert compare_fingerprints(there, here, ("val",)) == []
    edit(toy, "train_rgb_split1.txt", "v0 8 0\n", "")
    edit(toy, "val_rgb_split1.txt", "v3 11 0", "v3 10 0")
    here = print_of(toy)
    assert here["hash"] != there["hash"]
    counts = "validation list: the counts of 1 of 3 videos differ"
    assert compare_fingerprints(there, here, ("val",)) == [counts]
    train = "training list: 1 only there, 0 only here, of 2 videos"
    assert compare_fingerprints(there, here) == [train, counts]


def test_another_label_is_another_video(toy):
    there = print_of(toy)
    edit(toy, "val_rgb_split1.txt", "v3 11 0", "v3 11 1")
    words = "validation list: 1 only there, 1 only here, of 3 videos"
    assert compare_fingerprints(there, print_of(toy)) == [words]


def test_the_preparation_is_compared_setting_by_setting(toy):
    unrecorded = print_of(toy)
    start_preparation(toy.frames, Preparation(64, 48, 95))
    there = {modality: print_of(toy, modality) for modality in ("rgb", "flow")}
    assert compare_fingerprints(unrecorded, there["rgb"]) == ["preparation: recorded only here"]
    assert "flow dis, bound 20.0" in describe(there["flow"])
    (toy.frames / "preparation.json").unlink()
    start_preparation(toy.frames, dataclasses.replace(Preparation(64, 48, 75), bound=15.0))
    assert compare_fingerprints(there["rgb"], print_of(toy)) == [
        "preparation: quality 95 there, 75 here"
    ]
    assert compare_fingerprints(there["flow"], print_of(toy, "flow")) == [
        "preparation: quality 95 there, 75 here",
        "preparation: bound 20.0 there, 15.0 here",
    ]


def test_without_a_record_the_images_tell(toy):
    there = print_of(toy)
    for path in toy.frames.glob("*/img_*"):
        image = cv2.resize(cv2.imread(str(path)), (80, 60))
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert compare_fingerprints(there, print_of(toy), ("val",)) == [
        "validation frame size: 64x48 there, 80x60 here",
        "validation JPEG quality: 95 there, 70 here",
    ]


def test_lists_of_another_split_are_not_compared(toy):
    there = print_of(toy)
    for name in ("train", "val"):
        other = "val" if name == "train" else "train"
        shutil.copy(toy.lists / f"{name}_rgb_split1.txt", toy.lists / f"{other}_rgb_split2.txt")
    here = fingerprint(create_dataset("toy", 2, "rgb", toy.settings, toy.frames))
    assert compare_fingerprints(there, here) == []


def test_another_class_list_is_said(toy):
    there = print_of(toy)
    (toy.lists / "classes.txt").write_text("left\nright\nmiddle\n")
    assert compare_fingerprints(there, print_of(toy)) == ["the class list differs"]
    (toy.lists / "classes.txt").unlink()
    assert compare_fingerprints(there, print_of(toy)) == []


def test_the_frame_rate_is_there_where_it_is_known(toy):
    unknown = print_of(toy)
    assert "fps" not in unknown
    start_preparation(toy.frames, Preparation(64, 48, 95, fps=25.0, decoded="640x480"))
    recorded = print_of(toy)
    Preparation(64, 48, 95).write(toy.frames)  # as earlier records were
    assert print_of(toy) | {"fps": 25.0} == recorded  # one hash: the same frames
    Preparation(64, 48, 95, fps=25.0, decoded="640x480").write(toy.frames)
    for modality in ("rgb", "flow"):
        there = print_of(toy, modality)
        assert there["fps"] == 25.0 and "25 frames a second" in describe(there)
        assert not {"fps", "decoded"} & there["preparation"].keys()
    here = print_of(toy) | {"fps": 30.0}
    assert compare_fingerprints(print_of(toy), here) == [
        "frame rate of the videos: 25 there, 30 here"
    ]
    assert compare_fingerprints(print_of(toy), print_of(toy) | {"fps": 25.2}) == []


def test_the_frame_rate_of_video_files_is_looked_up(tmp_path):
    for name in "abc":
        path = tmp_path / "frames" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(6):
                image = np.zeros((48, 64, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            container.mux(stream.encode())
    dataset = TinyDataset(tmp_path)
    for part in ("train", "val"):
        dataset.write_lists(part, [("a", 6, 0), ("b", 6, 1), ("c", 6, 2)])
    assert print_of(dataset)["fps"] == 12.0
