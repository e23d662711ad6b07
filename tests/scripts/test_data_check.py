"""The doctor's quick part before a training, and the fingerprint from there to a test."""

import shutil

import cv2
import pytest
import torch

import two_stream_bert2
from datasets import DataError
from scripts.eval import spatial_demo_bert
from tests.conftest import TinyDataset

ARCH = "rgb_tiny3D16f_bert10_FRMB"


@pytest.fixture
def own(tiny, tmp_path) -> TinyDataset:
    """A copy of the tiny dataset, to be damaged."""
    copy = TinyDataset(tmp_path / "data")
    shutil.copytree(tiny.frames.parent, tmp_path / "data")
    return copy


def train(own, tmp_path, *flags):
    argv = [*own.flags, "--arch", ARCH, "--output", str(tmp_path / "runs"), "--workers", "0"]
    argv += ["-b", "4", "--iter-size", "1", "--max-steps", "1", *flags]
    assert two_stream_bert2.main(argv) == 0
    return tmp_path / "runs" / f"toy_{ARCH}_split1"


def edit(own, name, old, new):
    path = own.lists / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_errors_stop_before_the_training_all_at_once(own, tmp_path):
    edit(own, "train_rgb_split1.txt", "train (#0) [0] 40 0", "train (#0) [0] 50 0")
    shutil.rmtree(own.frames / "val (#1) [2]")
    (own.frames / "train (#1) [1]" / "img_00003.jpg").unlink()
    with pytest.raises(DataError) as error:
        train(own, tmp_path)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[:3]] == [
        "count-above",
        "gap",
        "no-folder",
    ]
    assert "scripts/data/doctor.py --dataset toy --split 1 --settings" in lines[3]
    assert not list((tmp_path / "runs").glob("*"))
    with pytest.raises(DataError, match="should have 50 rgb images"):
        train(own, tmp_path, "--skip-doctor")  # what cannot be read at all stops it still


def test_warnings_are_a_line_a_kind_and_train(own, tmp_path, capsys):
    for label in (0, 1):
        video = f"train (#0) [{label}]"
        edit(own, "train_rgb_split1.txt", f"{video} 40", f"{video} 30")
    train(own, tmp_path)
    printed = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
    *printed, few_steps = printed
    assert len(printed) == 1 and "12 training videos are 3 optimizer steps" in few_steps
    assert "count-below" in printed[0] and printed[0].endswith("has 40 (and 1 more)")


def test_a_video_in_both_lists_is_warned_of(own, tmp_path, capsys):
    edit(own, "val_rgb_split1.txt", "val (#0) [0] 36 0", "train (#0) [0] 40 0")
    train(own, tmp_path)
    assert "warning: train-and-test: 'train (#0) [0]' trains and tests" in capsys.readouterr().out


def test_the_fingerprint_is_printed_stored_and_compared(own, tmp_path, capsys):
    folder = train(own, tmp_path)
    stored = torch.load(folder / "last.pth.tar", weights_only=True)["fingerprint"]
    assert f"data {stored['hash']}: toy split 1 rgb, 12 training videos" in capsys.readouterr().out
    argv = [*own.flags, "--arch", ARCH, "--runs", str(tmp_path / "runs"), "--workers", "0"]
    argv += ["--results", str(tmp_path / "results"), "--no-ten-crop"]
    spatial_demo_bert.main(argv)
    train(own, tmp_path, "-c", "last")
    train(own, tmp_path, "-e")
    assert "other data" not in capsys.readouterr().out

    edit(own, "train_rgb_split1.txt", "train (#0) [0] 40 0\n", "")
    for path in own.frames.glob("*/img_*"):
        image = cv2.resize(cv2.imread(str(path)), (32, 24))
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    of_images = [
        "validation frame size: 64x48 there, 32x24 here",
        "validation JPEG quality: 95 there, 85 here",
    ]
    spatial_demo_bert.main(argv)
    assert differences_in(capsys.readouterr().out) == of_images
    train(own, tmp_path, "-e")
    assert differences_in(capsys.readouterr().out) == of_images
    train(own, tmp_path, "-c", "last")
    found = differences_in(capsys.readouterr().out)
    assert found[0] == "training list: 1 only there, 0 only here, of 11 videos"
    assert found[-2:] == of_images and len(found) == 5


def differences_in(text: str) -> list[str]:
    return [
        line.split("was made with: ")[1]
        for line in text.splitlines()
        if line.startswith("warning: other data than ")
    ]
