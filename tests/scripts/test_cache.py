"""Token caches as a user makes and uses them: killed, shared out, trained and tested on."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import two_stream2
import two_stream_bert2
from datasets import DataError
from engine import UsageError
from engine.files import CheckpointError
from engine.tokens.cache import open_cache
from scripts import cache_tokens
from scripts.eval import combined_demo, spatial_demo3D, spatial_demo_bert
from tests.conftest import run_script
from tests.scripts.test_distributed import join, start
from tests.scripts.test_resume import start as start_training

PLAIN, BERT, FRMB = "rgb_tiny3D16f", "rgb_tiny3D16f_bert10", "rgb_tiny3D16f_bert10_FRMB"
FLOW = "flow_tiny3D16f_bert10"
# A server that has imported everything and computed nothing: each run forks from it at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.scripts.test_cache"])


def make(tiny, folder: Path, *more: object, arch: str = PLAIN) -> None:
    flags = ["--arch", arch, "--cache", folder, "--views", 3, "--workers", 0, "--no-flip", *more]
    assert cache_tokens.main([*tiny.flags, *map(str, flags)]) == 0


def train_flags(tiny, cache: Path, output: Path, *more: object, arch: str = BERT) -> list[str]:
    flags = ["--arch", arch, "--cache", cache, "--output", output, "-b", 4, "--iter-size", 1]
    return [*tiny.flags, *map(str, [*flags, "--lr", "1e-3", "--epochs", 4, *more])]


def score_flags(tiny, runs: Path, *more: object, arch: str = BERT) -> list[str]:
    flags = ["--arch", arch, "--runs", runs, "--results", runs / "results", "--workers", 0]
    return [*tiny.flags, *map(str, [*flags, *more])]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}


def run_of(output: Path, arch: str = BERT) -> Path:
    return output / f"toy_{arch}_split1"


def losses(output: Path, arch: str = BERT, part: str = "train") -> list[float]:
    log = (run_of(output, arch) / "log.jsonl").read_text().splitlines()
    return [json.loads(line)[part]["loss"] for line in log]


@pytest.fixture(scope="module")
def teacher(tiny, tmp_path_factory) -> Path:
    """A network trained end to end for a moment, whose backbone the caches are made with."""
    output = tmp_path_factory.mktemp("teacher")
    flags = ["--arch", FRMB, "--output", output, "--max-steps", 2, "--workers", 0, "--no-flip"]
    two_stream_bert2.main([*tiny.flags, *map(str, flags), "-b", "4", "--iter-size", "1"])
    return run_of(output, FRMB) / "model_best.pth.tar"


@pytest.fixture(scope="module")
def cache(tiny, tmp_path_factory) -> Path:
    """Tokens of a random network of seed 0; read-only."""
    folder = tmp_path_factory.mktemp("cache")
    make(tiny, folder, "--weights", "none")
    return folder


@pytest.fixture(scope="module")
def trained(tiny, cache, tmp_path_factory) -> Path:
    """Runs of two heads trained on the cache; read-only."""
    output = tmp_path_factory.mktemp("runs")
    longer = ["--epochs", 40, "--scheduler", "cosine", "--save-freq", 10]
    assert two_stream_bert2.main(train_flags(tiny, cache, output, *longer)) == 0
    assert two_stream2.main(train_flags(tiny, cache, output, arch=PLAIN)) == 0
    return output


def cache_and_die(argv: list[str], die_at_sync: int) -> None:
    """Caches until the n-th video is being written, then dies as by kill -9."""
    synced = 0

    def fsync(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == die_at_sync:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync
    torch.set_num_threads(1)
    cache_tokens.main(argv)


def test_few_views_are_not_warmed_up_for(tiny, tmp_path, capsys):
    make(tiny, tmp_path / "cache", "--speed", "max", "--weights", "none")
    assert "--speed max: no variants are tried" in capsys.readouterr().out


def test_a_killed_caching_goes_on(tiny, cache, tmp_path, capsys):
    flags = ["--arch", PLAIN, "--cache", str(tmp_path), "--views", "3", "--workers", "0"]
    argv = [*tiny.flags, *flags, "--no-flip", "--weights", "none"]
    for _ in range(2):
        process = CONTEXT.Process(target=cache_and_die, args=(argv, 6))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    with pytest.raises(DataError, match="2 of 12 videos of 'train' are missing; run"):
        open_cache(tmp_path)
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    make(tiny, tmp_path, "--weights", "none")
    assert "10 videos are there already" in capsys.readouterr().out
    assert files(tmp_path) == files(cache)


def test_shards_and_processes_share_the_videos(tiny, cache, tmp_path):
    for shard in ("2/3", "1/3"):
        make(tiny, tmp_path / "a", "--weights", "none", "--shard", shard)
    with pytest.raises(DataError, match="4 of 12 videos"):
        open_cache(tmp_path / "a")
    make(tiny, tmp_path / "a", "--weights", "none", "--shard", "3/3")
    assert files(tmp_path / "a") == files(cache)
    flags = ["--arch", PLAIN, "--cache", tmp_path / "b", "--views", 3, "--workers", 0]
    flags += ["--no-flip", "--weights", "none"]
    join(start("cache", [*tiny.flags, *flags], tmp_path / "printed", processes=2))
    assert "21 videos, 105 clips" in (tmp_path / "printed_0").read_text()
    a, b = open_cache(tmp_path / "b"), open_cache(cache)
    for ours, theirs in zip(
        [*a.train.tokens, *a.val.tokens], [*b.train.tokens, *b.val.tokens], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)  # other threads, other rounding


def test_parts_and_loader_processes(tiny, cache, tmp_path):
    make(tiny, tmp_path, "--weights", "none", "--part", "val", "--workers", 2)
    assert len(open_cache(tmp_path, ("val",)).val.records) == 9
    with pytest.raises(DataError, match="12 of 12 videos of 'train'"):
        open_cache(tmp_path)
    make(tiny, tmp_path, "--weights", "none", "--part", "train", "--workers", 1)
    assert files(tmp_path) == files(cache)


def test_bad_command_lines(tiny, cache, tmp_path, capsys):
    for shard in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit):
            make(tiny, tmp_path, "--shard", shard)
    with pytest.raises(SystemExit):
        make(tiny, tmp_path, "--checkpoint", "a", "--weights", "b")
    with pytest.raises(UsageError, match="FRMB block of rgb_tiny3D16f_bert10_FRMB is new"):
        make(tiny, tmp_path, "--weights", "none", arch=FRMB)
    with pytest.raises(UsageError, match="no weights of rgb_tiny3D16f in .*; or --weights none"):
        make(tiny, tmp_path)
    with pytest.raises(DataError, match="different in views"):
        make(tiny, cache, "--weights", "none", "--views", 4)
    assert not list(tmp_path.iterdir())


def test_reductions_come_from_a_trained_network(tiny, teacher, tmp_path, trained):
    plain = run_of(trained, PLAIN) / "model_best.pth.tar"
    with pytest.raises(UsageError, match="FRMB block .* is new"):
        make(tiny, tmp_path / "c", "--weights", plain, arch=FRMB)
    make(tiny, tmp_path / "c", "--checkpoint", teacher, "--clips", "single", arch=FRMB)
    for arch in (FRMB, "rgb_tiny3D16f_FRMB_lstm"):
        two_stream_bert2.main(train_flags(tiny, tmp_path / "c", tmp_path, arch=arch))
        before, after = (
            torch.load(path, weights_only=True)["state_dict"]
            for path in (teacher, run_of(tmp_path, arch) / "last.pth.tar")
        )
        assert all(torch.equal(v, after[k]) for k, v in before.items() if k.startswith("features"))
    argv = score_flags(tiny, tmp_path, "--scores", tmp_path / "s.npz", arch=FRMB)
    compare_tests(spatial_demo_bert, argv, tmp_path / "c", tmp_path / "s.npz")


def compare_tests(script, argv: list[str], cache: Path, scores: Path) -> None:
    """A test's scores are the same with and without a cache."""
    found = []
    for more in ([], ["--cache", str(cache)]):
        assert script.main([*argv, *more]) == 0
        with np.load(scores, allow_pickle=False) as data:
            found.append(dict(data))
    plain, cached = found
    assert plain.keys() == cached.keys()
    for key, value in plain.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(cached[key], value, atol=5e-3, rtol=5e-3)
            assert np.ptp(value) > 0.1
        else:
            assert np.array_equal(value, cached[key])


def test_training_on_tokens_learns_and_tests_the_same_without(tiny, cache, trained, tmp_path):
    validation = losses(trained, part="val")  # in training, crops may miss what there is to see
    assert validation[-1] < 0.6 * validation[0]
    for arch in (BERT, PLAIN):
        argv = score_flags(tiny, trained, "--scores", tmp_path / "s.npz", arch=arch)
        compare_tests(spatial_demo3D, argv, cache, tmp_path / "s.npz")
        compare_tests(spatial_demo3D, [*argv, "--no-ten-crop"], cache, tmp_path / "s.npz")
        compare_tests(spatial_demo_bert, [*argv, "--no-ten-crop"], cache, tmp_path / "s.npz")
    with pytest.raises(UsageError, match="has the views of --clips multi with 5 crops"):
        spatial_demo_bert.main([*argv, "--cache", str(cache)])


def test_validation_on_tokens_is_validation(tiny, cache, trained, capsys):
    lines = []
    for more in (["--cache", str(cache)], ["--workers", "0"]):
        argv = ["--arch", BERT, "--output", str(trained), "-e", *more]
        assert two_stream_bert2.main([*tiny.flags, *argv]) == 0
        lines.append(capsys.readouterr().out.splitlines()[-1])
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert lines[0].split("top-1")[1] == lines[1].split("top-1")[1]


def test_what_training_says(tiny, cache, tmp_path, capsys):
    two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--epochs", 1))
    printed = capsys.readouterr().out
    assert f"tokens: {cache}" in printed and "matrix rate" not in printed
    flags = json.loads((run_of(tmp_path) / "args.json").read_text())
    assert flags["freeze_backbone"] is True and flags["cache"] == str(cache)


def test_an_interrupted_training_goes_on_exactly(tiny, cache, tmp_path):
    recipe = ["--ema", "0.9", "--mixup", "0.2", "--seed", "0", "--clip-grad", "1"]
    two_stream_bert2.main(train_flags(tiny, cache, tmp_path / "a", *recipe))
    argv = train_flags(tiny, cache, tmp_path / "b", *recipe, "--save-steps", 1)
    process = start_training(argv, die_at_sync=14)  # in the second epoch
    process.join()
    assert process.exitcode == -signal.SIGKILL
    last = torch.load(run_of(tmp_path / "b") / "last.pth.tar", weights_only=True)
    assert last["epoch"] == 1 and last["progress"]["result"]["steps"] == 1
    two_stream_bert2.main(train_flags(tiny, cache, tmp_path / "b", *recipe, "-c", "last"))
    a, b = (
        torch.load(run_of(tmp_path / name) / "last.pth.tar", weights_only=True) for name in "ab"
    )
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    for one, other in ((a["state_dict"], b["state_dict"]), (a["learner"], b["learner"])):
        one, other = one.get("ema", one), other.get("ema", other)
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_processes_train_as_one(tiny, cache, tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        argv = train_flags(tiny, cache, tmp_path / name, "-b", 4 // processes, arch=PLAIN)
        join(start("train", argv, tmp_path / f"printed_{name}", processes))
    np.testing.assert_allclose(*(losses(tmp_path / n, PLAIN) for n in ("one", "two")), rtol=1e-4)


def test_other_weights_are_refused(tiny, cache, teacher, trained, tmp_path):
    with pytest.raises(CheckpointError, match="not those that .* was made with"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--seed", 1))
    argv = ["--arch", BERT, "--output", str(tmp_path), "--workers", "0", "--max-steps", "1"]
    two_stream_bert2.main([*tiny.flags, *argv])  # the whole network learns
    whole = str(run_of(tmp_path) / "last.pth.tar")
    for flags in (["--weights", whole], ["-c", whole], ["-e", "-c", whole]):
        with pytest.raises(CheckpointError, match="not those that .* was made with"):
            two_stream_bert2.main(train_flags(tiny, cache, tmp_path / "new", *flags))
    with pytest.raises(CheckpointError, match="not those that .* was made with"):
        spatial_demo3D.main(score_flags(tiny, tmp_path, "--cache", cache))
    right = run_of(trained) / "model_best.pth.tar"
    assert two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--weights", right)) == 0


def test_other_data_are_refused(tiny, cache, tmp_path):
    with pytest.raises(DataError, match="a cache of the tokens rgb_tiny3D16f, not of .*_FRMB"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path, arch=FRMB))
    with pytest.raises(DataError, match="a cache of the dataset toy, not of other"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--dataset", "other"))
    with pytest.raises(DataError, match="a cache of the split 1, not of 2"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--split", "2"))
    with pytest.raises(UsageError, match="they are made already"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--num-seg", "2"))
    with pytest.raises(DataError, match="no token cache .*toy_tokens"):
        argv = train_flags(tiny, cache, tmp_path)
        argv.remove(str(cache))  # the default folder
        two_stream_bert2.main(argv)
    settings = tmp_path / "settings"
    shutil.copytree(tiny.settings, settings)
    path = settings / "toy" / "val_rgb_split1.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="made of another 'val' list"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path, "--settings", settings))


def test_a_cache_is_enough(tiny, cache, trained, tmp_path):
    """Neither frames nor lists are needed with it."""
    nowhere = ["--frames", tmp_path / "none", "--settings", tmp_path / "none"]
    assert two_stream_bert2.main(train_flags(tiny, cache, tmp_path, *nowhere)) == 0
    assert losses(tmp_path)[0] == pytest.approx(losses(trained)[0], rel=1e-5)
    argv = score_flags(tiny, trained, *nowhere, "--cache", cache, "--scores", tmp_path / "s.npz")
    assert spatial_demo3D.main(argv) == 0
    with np.load(tmp_path / "s.npz") as data:
        assert data["classes"].tolist() == ["left", "middle", "right"]
    of_frames, of_cache = (
        torch.load(run_of(runs) / "last.pth.tar", weights_only=True) for runs in (trained, tmp_path)
    )
    assert of_cache["fingerprint"] == of_frames["fingerprint"]


def test_two_streams_from_a_folder_of_caches(tiny, trained, tmp_path):
    for arch in (BERT, FLOW):
        name = arch.removesuffix("_bert10") + "_split1"
        make(tiny, tmp_path / "caches" / name, "--weights", "none", arch=arch)
    two_stream_bert2.main(train_flags(tiny, tmp_path / "caches", tmp_path, arch=FLOW))
    two_stream_bert2.main(train_flags(tiny, tmp_path / "caches", tmp_path, arch=BERT))
    argv = score_flags(tiny, tmp_path, "--scores", tmp_path / "s.npz")
    argv = [argument for argument in argv if argument not in ("--arch", BERT)]
    argv += ["--arch_rgb", BERT, "--arch_flow", FLOW]
    compare_tests(combined_demo, argv, tmp_path / "caches", tmp_path / "s.npz")


def test_the_script_runs_on_its_own(tiny, tmp_path):
    flags = ["--arch", PLAIN, "--cache", str(tmp_path), "--views", "1", "--clips", "single"]
    flags += ["--weights", "none", "--no-ten-crop"]
    process = run_script("scripts/cache_tokens.py", *tiny.flags, *flags)
    assert "21 videos, 21 clips" in process.stdout and "times the" in process.stdout
    process = run_script("scripts/cache_tokens.py", *tiny.flags, "-a", FRMB, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("error: the FRMB block") and "Traceback" not in process.stderr
