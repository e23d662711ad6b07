"""The fine-tuning flags in whole trainings: saved, continued exactly, tested with the average."""

import json
import os
import signal

import pytest
import torch

import two_stream2
import two_stream_bert2
from engine import UsageError
from engine.ablation.heads import recipe_flags
from engine.files import CheckpointError
from engine.speed import Speed
from engine.training.checkpoints import CheckpointManager
from models import ArchError
from scripts.eval import spatial_demo_bert

ARCH = "rgb_tiny3D16f_bert10_FRMB"
ALL = "--clip-grad 1 --ema 0.5 --freeze-bn --layer-decay 0.7 --label-smoothing 0.1"
ALL += " --mixup 0.2 --drop-tokens 0.3 --activation-checkpointing --drop-path 0.4"
ALL += " --rand-augment 9 --random-erasing 0.5 --color-jitter 0.4"


def train(tiny, output, *more, script=two_stream_bert2, code=0):
    argv = [*tiny.flags, "--arch", ARCH, "--output", str(output), "--workers", "0", "-b", "4"]
    argv += ["--iter-size", "1", "--lr", "1e-3", *map(str, more)]
    assert script.main(argv) == code
    return output / f"{tiny.name}_{ARCH}_split1"


def content_of(run, name="last") -> dict:
    return torch.load(run / f"{name}.pth.tar", weights_only=True)


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_all_flags_together_are_saved_and_go_on_exactly(tiny, tmp_path, monkeypatch):
    whole = train(tiny, tmp_path / "whole", *ALL.split(), "--epochs", 2)
    real = CheckpointManager.after_step

    def ask_to_end(self, stats):
        if stats.steps == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, stats)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointManager, "after_step", ask_to_end)
        cut = train(tiny, tmp_path / "cut", *ALL.split(), "--epochs", 2, code=143)
    train(tiny, tmp_path / "cut", *ALL.split(), "--epochs", 2, "-c", "last")
    first, second = content_of(whole), content_of(cut)
    assert_same(first["state_dict"], second["state_dict"])
    assert_same(first["learner"]["ema"], second["learner"]["ema"])
    recipe = first["flags"]
    assert (recipe["clip_grad"], recipe["ema"], recipe["layer_decay"]) == (1.0, 0.5, 0.7)
    assert (recipe["label_smoothing"], recipe["mixup"], recipe["drop_tokens"]) == (0.1, 0.2, 0.3)
    changes = [recipe[key] for key in ("rand_augment", "random_erasing", "color_jitter")]
    assert changes == [9, 0.5, 0.4] and recipe["drop_path"] == 0.4
    assert recipe["freeze_bn"] and recipe["activation_checkpointing"]
    assert not recipe["freeze_backbone"] and not recipe["sync_bn"] and recipe["amp"] == "off"


def test_the_flags_of_speed_reach_the_training(tiny, tmp_path, capsys, monkeypatch):
    """bfloat16 is an approximation, slow or fast: the run says so, and its checkpoint."""
    run = train(tiny, tmp_path, "--amp", "bf16", "--max-steps", 1, "--epochs", 1)
    assert content_of(run)["flags"]["amp"] == "bf16"
    args = json.loads((run / "args.json").read_text())
    assert args["amp"] == "bf16" and args["speed"] is None
    train(tiny, tmp_path, "--speed", "max", "--max-steps", 1, "--epochs", 1)
    assert "--speed max: no variants are tried" in capsys.readouterr().out
    monkeypatch.setattr("engine.speed.tuning.GAIN", 1e9)
    train(tiny, tmp_path, "--speed", "max", "--max-steps", 1, "--epochs", 1)
    assert "--speed max: compiled" in capsys.readouterr().out


def test_the_scale_of_fp16_is_saved_and_goes_on(tiny, tmp_path, monkeypatch):
    """It is for GPUs, and refused on a CPU, which computes it slowly: a single step each."""
    with pytest.raises(UsageError, match="--amp fp16 needs a GPU"):
        train(tiny, tmp_path, "--amp", "fp16")
    half = Speed("exact", "fp16", channels_last=True, compile=False)
    monkeypatch.setattr("engine.training.run.choose_speed", lambda *_: half)
    flags = ["--amp", "fp16", "--max-steps", 1, "-b", 2]
    run = train(tiny, tmp_path, *flags, "--epochs", 1)
    content = content_of(run)
    assert content["flags"]["amp"] == "fp16"
    assert content["learner"]["scaler"]["scale"] > 1
    content["learner"]["scaler"]["scale"] = 1024.0
    torch.save(content, run / "last.pth.tar")
    train(tiny, tmp_path, *flags, "--epochs", 2, "-c", "last")
    assert content_of(run)["learner"]["scaler"]["scale"] == 1024.0


def test_the_average_is_evaluated_saved_and_tested(tiny, tmp_path):
    run = train(tiny, tmp_path / "runs", "--ema", 0.5, "--epochs", 2)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = content_of(run, "model_best_ema")
    assert best["best_prec1"] == pytest.approx(max(line["ema"]["top1"] for line in log), abs=1e-3)
    assert_same(best["state_dict"], best["learner"]["ema"])
    ordinary = content_of(run, "model_best")["state_dict"]
    assert any(not torch.equal(ordinary[key], best["state_dict"][key]) for key in ordinary)
    file = str(run / "model_best_ema.pth.tar")
    argv = [*tiny.flags, "--arch", ARCH, "--checkpoint", file, "--results", str(tmp_path / "r")]
    assert spatial_demo_bert.main([*argv, "-j", "0", "--no-ten-crop"]) == 0
    (summary,) = (tmp_path / "r").glob("*.json")
    epochs = {line["epoch"]: line["ema"]["top1"] for line in log}
    assert json.loads(summary.read_text())["top1"] == pytest.approx(epochs[best["epoch"]], abs=1e-3)


def test_another_recipe_is_said_and_another_layout_refused(tiny, tmp_path, capsys):
    run = train(tiny, tmp_path, "--epochs", 1)
    train(tiny, tmp_path, "--epochs", 2, "--mixup", 0.5, "-c", "last")
    assert "trained with --mixup 0.0, now 0.5" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="1 groups of parameters.*--layer-decay"):
        train(tiny, tmp_path, "--epochs", 3, "--layer-decay", 0.5, "-c", "last")
    with pytest.raises(CheckpointError, match="trained with AdamW; continue with two_stream_bert2"):
        train(tiny, tmp_path, "--epochs", 3, "-c", "last", script=two_stream2)
    assert (run / "last.pth.tar").exists()


def test_an_average_begins_where_a_run_without_one_ended(tiny, tmp_path):
    train(tiny, tmp_path, "--epochs", 1)
    run = train(tiny, tmp_path, "--epochs", 2, "--ema", 0.999, "-c", "last")
    content = content_of(run)
    assert content["learner"]["ema_steps"] == 3


def test_drop_tokens_without_bert_is_refused(tiny, tmp_path):
    argv = [*tiny.flags, "--arch", "rgb_tiny3D16f", "--output", str(tmp_path), "--workers", "0"]
    with pytest.raises(ArchError, match="no BERT head"):
        two_stream2.main([*argv, "--drop-tokens", "0.1"])


def test_a_named_recipe_is_its_flags_and_single_flags_win(capsys):
    plain = two_stream_bert2.parse_args([]).recipe
    assert (plain.lr, plain.batch_size, plain.iter_size, plain.epochs) == (1e-5, 8, 16, 200)
    assert two_stream_bert2.parse_args(["--recipe", "paper-adamw"]).recipe == plain
    sgd = two_stream2.parse_args([]).recipe
    assert (sgd.lr, sgd.batch_size, sgd.iter_size, sgd.scheduler) == (1e-2, 4, 6, "plateau")
    assert capsys.readouterr().out == ""  # what is the default is not printed
    few = two_stream_bert2.parse_args(["--recipe", "few-videos", "--lr", "3e-4"]).recipe
    (printed,) = capsys.readouterr().out.splitlines()
    name, *flags = printed.removeprefix("--recipe ").split()
    assert name == "few-videos:" and "--freeze-bn" in flags
    assert two_stream_bert2.parse_args([*flags, "--lr", "3e-4"]).recipe == few
    assert few.lr == 3e-4 and few.scheduler == "cosine" and few.iter_size == 1
    with pytest.raises(UsageError, match=r"few-videos is for adamw; train with two_stream_bert2"):
        two_stream2.parse_args(["--recipe", "few-videos"])


def test_what_an_ablation_tuned_is_said_as_flags_that_train_so():
    tuned = {"optimizer": "adamw", "lr": 3e-4, "weight_decay": 1e-3, "epochs": 60}
    flags = recipe_flags(tuned, batch_size=16)
    assert flags == ["--recipe", "few-videos", "--lr", "0.0003", "--weight-decay", "0.001"]
    recipe = two_stream_bert2.parse_args(flags).recipe
    assert (recipe.lr, recipe.epochs, recipe.batch_size) == (3e-4, 60, 16)
    other = two_stream2.parse_args(recipe_flags(tuned | {"optimizer": "sgd", "lr": 0.3}, 8)).recipe
    assert (other.lr, other.batch_size, other.warmup_epochs, other.freeze_bn) == (0.3, 8, 2, True)


@pytest.mark.parametrize("flags", [["--rand-augment", 9], ["--color-jitter", 0.4]])
def test_changes_of_pictures_are_refused_for_flow(tiny, tmp_path, flags):
    with pytest.raises(UsageError, match=f"{flags[0]} changes.*flow_tiny3D16f are displacements"):
        train(tiny, tmp_path, *flags, "--arch", "flow_tiny3D16f")
    train(tiny, tmp_path, "--random-erasing", 1, "--arch", "flow_tiny3D16f", "--max-steps", 1)


@pytest.mark.parametrize("flag", ["--rand-augment", "--random-erasing", "--color-jitter"])
def test_cached_tokens_cannot_be_augmented(tiny, tmp_path, flag):
    with pytest.raises(UsageError, match="scripts/cache_tokens.py"):
        train(tiny, tmp_path, flag, 1, "--cache", tmp_path)


@pytest.mark.parametrize("flags", [["--freeze-backbone"], ["--cache"]])
def test_a_frozen_backbone_drops_no_path(tiny, tmp_path, flags):
    with pytest.raises(UsageError, match="--drop-path.*is frozen"):
        train(tiny, tmp_path, "--drop-path", 0.1, *flags)


@pytest.mark.parametrize("text", ["31", "-1", "0.5", "nan"])
def test_a_magnitude_is_a_whole_number_to_30(tiny, tmp_path, capsys, text):
    with pytest.raises(SystemExit):
        train(tiny, tmp_path, f"--rand-augment={text}")
    assert "--rand-augment" in capsys.readouterr().err
