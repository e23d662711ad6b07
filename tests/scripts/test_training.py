"""The two training scripts as a user runs them, on a dataset of a few tiny videos."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.models.video import r3d_18

import two_stream2
import two_stream_bert2
from datasets import DataError
from engine import UsageError
from engine.files import CheckpointError
from engine.speed import choose_speed
from engine.training import run as run_module
from engine.training.build import build_data, build_model
from engine.training.epoch import NonFiniteLoss
from models import ArchError, get_arch
from tests.conftest import ROOT, TinyDataset, run_script

BERT = "rgb_tiny3D16f_bert10_FRMB"
QUICK = ["--workers", "0", "-b", "4", "--iter-size", "2", "--lr", "1e-3"]


def train(tiny, output, *flags, arch=BERT, script=two_stream_bert2):
    argv = [*tiny.flags, "--arch", arch, "--output", str(output), *QUICK, *map(str, flags)]
    assert script.main(argv) == 0
    return output / f"{tiny.name}_{arch}_split1"


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished training of three epochs; read-only."""
    return train(tiny, tmp_path_factory.mktemp("run"), "--epochs", 3)


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of that training to continue."""
    shutil.copytree(run.parent, tmp_path / "runs")
    return tmp_path / "runs" / run.name


@pytest.mark.parametrize(
    ("script", "defaults"),
    [
        (two_stream2, ("rgb_resneXt3D64f101", 4, 6, 1e-2, 200)),
        (two_stream_bert2, ("rgb_resneXt3D64f101_bert10_FRMB", 8, 16, 1e-5, 400)),
    ],
)
def test_published_defaults(script, defaults, monkeypatch):
    seen = []
    monkeypatch.setattr(script, "run_training", lambda config, _: seen.append(config.flags()))
    script.main([])
    script.main(["--settings=s", "-d=ucf101", "-a=x", "-s=2", "-j=3", "--epochs=4", "-b=5"])
    script.main(["--learning-rate=0.5", "--wd=0.1", "--save-freq=2", "-e", "-c", "--num-seg=3"])
    args, second, third = (SimpleNamespace(**flags) for flags in seen)
    shown = (args.arch, args.batch_size, args.iter_size, args.lr, args.print_freq)
    assert shown == defaults
    assert (args.dataset, args.split, args.workers, args.epochs) == ("hmdb51", 1, 2, 200)
    assert (args.momentum, args.weight_decay, args.save_freq, args.num_seg) == (0.9, 1e-3, 1, 1)
    assert (args.evaluate, args.resume) == (False, None)
    assert (second.dataset, second.arch, second.split, second.workers) == ("ucf101", "x", 2, 3)
    assert (third.lr, third.weight_decay, third.evaluate, third.resume) == (0.5, 0.1, True, "best")
    if script is two_stream2:
        script.main(["--start-epoch", "7"])
        assert seen[-1]["start_epoch"] == 7


def test_a_run_leaves_everything_in_its_folder(run, tiny):
    names = {path.name for path in run.iterdir() if "tfevents" not in path.name}
    assert names == {
        "model_best.pth.tar",
        "last.pth.tar",
        "log.jsonl",
        "args.json",
        "curves.png",
    }
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert log[0]["steps"] == 2  # 12 videos in batches of 4, two batches a step
    for part in ("train", "val"):
        assert log[0][part].keys() == {
            "loss",
            "top1",
            "top3",
            "seconds_loading",
            "seconds_computing",
            "clips_per_second",
        }
    assert json.loads((run / "args.json").read_text())["lr"] == 1e-3
    checkpoint = torch.load(run / "last.pth.tar", weights_only=True)
    assert checkpoint["epoch"] == 3 and checkpoint["arch"] == BERT
    assert checkpoint["class_names"] == ["left", "middle", "right"]
    assert (checkpoint["dataset"], checkpoint["split"]) == (tiny.name, 1)
    assert (checkpoint["mirror"], checkpoint["flow_bound"]) == ("plain", None)
    best = max(line["val"]["top1"] for line in log)
    assert checkpoint["best_prec1"] == pytest.approx(best, abs=1e-3)


def test_tensorboard_has_the_published_scalars(run):
    events = EventAccumulator(str(run))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"data/top1_validation", "data/top3_validation", "data/top1_training"} <= tags
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    written = [event.value for event in events.Scalars("data/top1_validation")]
    np.testing.assert_allclose(written, [line["val"]["top1"] for line in log], rtol=1e-4)


def test_the_same_seed_trains_the_same_and_another_does_not(run, tiny, tmp_path):
    again = train(tiny, tmp_path / "again", "--epochs", 3, "--workers", 1)
    other = train(tiny, tmp_path / "other", "--epochs", 3, "--seed", 1)
    assert same(weights(run / "last.pth.tar"), weights(again / "last.pth.tar"))
    assert not same(weights(run / "last.pth.tar"), weights(other / "last.pth.tar"))


def test_continuing_equals_training_in_one_go(run, tiny, tmp_path):
    """With the plateau's schedule, which does not know how many epochs will come."""
    train(tiny, tmp_path, "--epochs", 1)
    folder = train(tiny, tmp_path, "--epochs", 3, "-c", "last")
    assert same(weights(run / "last.pth.tar"), weights(folder / "last.pth.tar"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]


def test_continue_takes_the_best_by_default_or_a_file(own_run, tiny, capsys):
    best = torch.load(own_run / "model_best.pth.tar", weights_only=True)["epoch"]
    train(tiny, own_run.parent, "--epochs", 4, "-c")
    assert f"model_best.pth.tar: {best} epochs done" in capsys.readouterr().out
    train(tiny, own_run.parent, "--epochs", 5, "-c", own_run / "last.pth.tar")
    assert "last.pth.tar: 4 epochs done" in capsys.readouterr().out


def test_going_back_to_the_best_keeps_a_later_last(own_run, tiny, capsys):
    content = torch.load(own_run / "model_best.pth.tar", weights_only=True)
    torch.save(content | {"epoch": 1}, own_run / "model_best.pth.tar")
    later = (own_run / "last.pth.tar").read_bytes()
    train(tiny, own_run.parent, "--epochs", 2, "-c", "--lr", "0.5")
    (kept,) = own_run.glob("last.before-*.pth.tar")
    assert kept.read_bytes() == later
    printed = capsys.readouterr().out
    assert "kept as last.before-" in printed and "begun with --lr 0.001" in printed
    assert len((own_run / "log.dropped.jsonl").read_text().splitlines()) == 2


def test_the_other_script_does_not_continue(own_run, tiny):
    with pytest.raises(CheckpointError, match="trained with AdamW; continue with two_stream_bert2"):
        train(tiny, own_run.parent, "-c", script=two_stream2)


def test_impossible_numbers_and_foreign_weights_are_refused(tiny, tmp_path, capsys):
    for flag, value in (("--lr", "-1"), ("--momentum", "2"), ("--wd", "nan"), ("-b", "0")):
        with pytest.raises(SystemExit):
            train(tiny, tmp_path, flag, value)
        assert f"must be at least {1 if flag == '-b' else 0}" in capsys.readouterr().err
    for content in ({"a": 1}, {1: torch.ones(1)}):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(CheckpointError, match="this holds no weights"):
            train(tiny, tmp_path, "--weights", tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="no weights .*absent.pth"):
        train(tiny, tmp_path, "--weights", tmp_path / "absent.pth")


def test_evaluate_reports_the_best_model_and_writes_nothing(own_run, tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in own_run.iterdir()}
    train(tiny, own_run.parent, "-e")
    printed = capsys.readouterr().out
    best = torch.load(own_run / "model_best.pth.tar", weights_only=True)["best_prec1"]
    assert f"top-1 {best:.2f} %" in printed and "model_best.pth.tar" in printed
    assert {path: path.stat().st_mtime_ns for path in own_run.iterdir()} == before


def test_a_new_training_keeps_the_earlier_one(own_run, tiny):
    old = weights(own_run / "last.pth.tar")
    train(tiny, own_run.parent, "--epochs", 1, "--seed", 5)
    (kept,) = own_run.parent.glob("*.before-*")
    assert same(weights(kept / "last.pth.tar"), old)
    assert not same(weights(own_run / "last.pth.tar"), old)


def test_continuing_anothers_checkpoint_leaves_this_runs_files(own_run, tiny, tmp_path, capsys):
    train(tiny, tmp_path / "other", "--epochs", 1, "--seed", 3)
    other = tmp_path / "other" / own_run.name / "last.pth.tar"
    before = {path.name: path.read_bytes() for path in own_run.iterdir() if path.is_file()}
    train(tiny, own_run.parent, "--epochs", 2, "-c", other)
    (kept,) = own_run.parent.glob("*.before-*")
    assert {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()} == before
    log = [json.loads(line) for line in (own_run / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [2]
    assert "an earlier run was there" in capsys.readouterr().out


def test_a_diverged_network_ends_the_run_and_is_not_saved(own_run, tiny, monkeypatch):
    """The advice names what is finite; the files stay."""
    before = {path.name: path.read_bytes() for path in own_run.glob("*.pth.tar")}
    real = run_module.validate

    def diverged(model, **options):
        with torch.no_grad():
            model.fc_action.bias.fill_(float("nan"))
        return real(model, **options)

    monkeypatch.setattr(run_module, "validate", diverged)
    newest = own_run / "last.pth.tar"
    with pytest.raises(NonFiniteLoss, match=f"epoch 4/4 validation.*finite weights is {newest}"):
        train(tiny, own_run.parent, "--epochs", 4, "-c", "last")
    assert {path.name: path.read_bytes() for path in own_run.glob("*.pth.tar")} == before


def test_max_steps(tiny, tmp_path, capsys):
    folder = train(tiny, tmp_path, "--max-steps", 3)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in log] == [2, 1]
    assert "stopped after --max-steps 3" in capsys.readouterr().out
    assert (folder / "last.pth.tar").exists()


def test_nothing_that_cannot_be_printed_ends_a_training(tiny, tmp_path):
    """stdout on a full disk, and stderr without a reader."""
    flags = [*tiny.flags, "--arch", BERT, "--output", tmp_path, *QUICK, "--epochs", 2]
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "two_stream_bert2.py", *map(str, flags), "--print-freq", "1"]
        code = subprocess.run(command, cwd=ROOT, stdout=full, stderr=write).returncode
    os.close(write)
    (folder,) = tmp_path.iterdir()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert code == 0 and [line["epoch"] for line in log] == [1, 2]
    assert all(0 < line["train"]["clips_per_second"] < 1e6 for line in log)


def test_sgd_on_flow_with_segments_and_cosine(tiny, tmp_path):
    folder = train(
        tiny,
        tmp_path,
        *("--epochs", 2, "--num-seg", 2, "--scheduler", "cosine", "--warmup-epochs", 1),
        arch="flow_tiny3D16f",
        script=two_stream2,
    )
    checkpoint = torch.load(folder / "last.pth.tar", weights_only=True)
    assert checkpoint["mirror"] == "inverted"
    assert checkpoint["optimizer"]["param_groups"][0]["dampening"] == 0.9
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in log] == [5e-4, 1e-3]


def test_no_flip_is_recorded(tiny, tmp_path):
    folder = train(tiny, tmp_path, "--epochs", 1, "--no-flip")
    assert torch.load(folder / "last.pth.tar", weights_only=True)["mirror"] == "none"


def test_pretrained_weights(run, tiny, tmp_path, capsys):
    path = run / "model_best.pth.tar"
    train(tiny, tmp_path, "--max-steps", 1, "--weights", path, arch="rgb_tiny3D16f_FRMB_lstm")
    printed = capsys.readouterr().out
    assert "model_best.pth.tar: checkpoint, " in printed
    assert "new: 8 entries (lstm)" in printed
    train(tiny, tmp_path, "--max-steps", 1, "--weights", path, arch="flow_tiny3D16f_bert10_FRMB")
    assert "reshaped: features.0.weight (16, 3, 3, 5, 5)" in capsys.readouterr().out
    with pytest.raises(ArchError, match="model_best.*do not fit rgb_r3d_16f_18"):
        train(tiny, tmp_path, "--weights", path, arch="rgb_r3d_16f_18")


def test_weights_are_found_by_themselves_or_not_wanted(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("engine.files.ROOT", tmp_path)
    built = []

    def build(config, _):
        device = torch.device("cpu")
        speed = choose_speed(config.computing, device)
        data = build_data(config, get_arch(config.arch), device, speed)
        built.append(build_model(config, data, device, speed))
        return 0

    monkeypatch.setattr(two_stream_bert2, "run_training", build)
    file = tmp_path / "weights" / "r3d_18-b3b3357e.pth"
    file.parent.mkdir()
    torch.save(r3d_18().state_dict(), file)
    for flags, expected in (
        ([], f"weights: {file}: R3D-18, 120 entries loaded"),
        (["--weights", "r3d-18-kinetics400"], f"weights: {file}: R3D-18"),
        (["--weights", "none"], "no weights: training from scratch"),
    ):
        train(tiny, tmp_path, *flags, arch="rgb_r3d_16f_18")
        stem = built[-1].state_dict()["features.0.0.weight"]
        loaded = torch.equal(stem, torch.load(file)["stem.0.weight"])
        assert loaded == ("R3D" in expected)
        assert expected in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="scripts/weights.py get s3d-kinetics400"):
        train(tiny, tmp_path, "--weights", "s3d-kinetics400")


def test_mistakes_are_found_before_training(tiny, run, tmp_path):
    with pytest.raises(ArchError, match="did you mean rgb_tiny3D16f"):
        train(tiny, tmp_path, arch="rgb_tiny3d16f")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(tiny, tmp_path, "-c")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(tiny, tmp_path, "-e", "-c", tmp_path / "absent.pth.tar")
    with pytest.raises(DataError, match="no list .*split9"):
        train(tiny, tmp_path, "-s", 9)
    with pytest.raises(UsageError, match="--device"):
        train(tiny, tmp_path, "--device", "warp")
    with pytest.raises(CheckpointError, match="does not fit"):
        train(tiny, tmp_path, "-c", run / "last.pth.tar", arch="rgb_tiny3D16f")
    assert not list(tmp_path.iterdir())


def test_a_bad_image_stops_a_training_and_is_named(tmp_path):
    toy = TinyDataset(tmp_path)
    toy.add_video("good", 0, 20)
    toy.add_video("bad one", 1, 16)
    for part in ("train", "val"):
        toy.write_lists(part, [("good", 20, 0), ("bad one", 16, 1)])
    path = toy.frames / "bad one" / "img_00005.jpg"
    path.write_bytes(path.read_bytes()[:300])
    flags = [*toy.flags, "--arch", BERT, "--output", tmp_path / "runs", "-b", 2, "--workers", 1]
    process = run_script("two_stream_bert2.py", *flags, check=False)
    assert process.returncode == 1
    (message,) = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    for part in ("train_rgb_split1.txt:2", "'bad one'", "img_00005.jpg", "truncated"):
        assert part in message
    assert "Traceback" not in process.stderr


def test_the_batch_size_that_fits(tiny, tmp_path, capsys, monkeypatch):
    """It is chosen before anything is built, kept when continued, refused if 0."""
    auto = ["-b", "auto", "--iter-size", 1, "--max-steps", 1]
    train(tiny, tmp_path, *auto)
    path = tmp_path / f"{tiny.name}_{BERT}_split1"
    flags = torch.load(path / "last.pth.tar", weights_only=True)["flags"]
    size, number = flags["batch_size"], flags["iter_size"]
    assert size * number == 8
    assert json.loads((path / "args.json").read_text())["batch_size"] == size
    assert f"--batch-size auto: {size}, --iter-size {number} (of" in capsys.readouterr().out
    monkeypatch.setattr("engine.training.batch_size.free_bytes", lambda device: 0)
    with pytest.raises(UsageError, match="--activation-checkpointing"):
        train(tiny, tmp_path / "other", *auto)
    train(tiny, tmp_path, *auto, "-c", "last")
    assert f"--batch-size auto: {size}, --iter-size {number} (as in" in capsys.readouterr().out
    with pytest.raises(UsageError, match="tokens of --cache are small"):
        train(tiny, tmp_path, *auto, "--cache")
