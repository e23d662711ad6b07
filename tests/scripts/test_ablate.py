"""ablate.py as a user runs it: on caches, killed and run again, and on whole networks."""

import json
import shutil

import numpy as np
import pytest

from datasets import DataError
from engine import UsageError
from engine.ablation.sweeps import TokenSweep
from engine.testing.score_files import read_scores
from engine.training.folder import owned
from models import create_model
from scripts import ablate, cache_tokens, summarize
from tests.engine.ablation.order_tokens import order_cache


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    root = tmp_path_factory.mktemp("caches")
    return [str(order_cache(root / f"split{n}", split=n, train=8, val=4)) for n in (1, 2)]


FOR_CACHES = (
    ["--tuned", "tuning.json"],
    ["--stage-lr", "1e-4"],
    ["--speed", "fast"],
    ["--shots", "2"],
    ["--leave-one-out"],
)


def flags(caches, output, *more):
    return [
        *("--cache", *caches, "--heads", "average", "flat", "--group", r"_g(\d+)_"),
        *("--folds", "2", "--lr", "1e-4", "1e-2", "--epochs", "6", "--batch-size", "8"),
        *("--fold-seeds", "1", "--budget", "1"),
        *("--seeds", "2"),
        *("--output", str(output), *more),
    ]


def test_a_sweep_on_caches_killed_and_run_again(caches, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    orders = ["--time-order", "normal", "reversed"]
    subset = ["--subset", "order=first_then_second,second_then_first"]
    assert ablate.main(flags(caches, whole, *orders, *subset)) == 0
    lines = (whole / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * (4 + 2)  # protocol; heads x splits x (rates x folds + seeds)
    summary = json.loads((whole / "ablation.json").read_text())
    assert summary["base"] == "average" and summary["protocol"]["folds"] == 2
    average, flat = summary["rows"]
    assert average["test"]["normal"] == average["test"]["reversed"]
    gained = flat["test"]["normal"]["order"]["mean"]
    assert gained > 85 > 75 >= average["test"]["normal"]["order"]["mean"]
    assert flat["test"]["reversed"]["order"]["mean"] < 15
    assert flat["tuning"]["1"]["chosen"]["lr"] == 1e-2
    assert flat["swapped"]["reversed"]["order"]["mean"] > 85
    assert (whole / "ablation.png").stat().st_size > 1000
    words = " ".join((whole / "ablation.md").read_text().split())  # columns are padded
    assert "| other classes, tokens in order | normal | reversed |" in words

    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copytree(whole / "scores", killed / "scores")
    (killed / "runs.jsonl").write_text("\n".join(lines[:13]) + "\n" + lines[13][:20])
    trainings = []
    for name in ("_fold", "_final"):
        method = getattr(TokenSweep, name)

        def counted(self, *args, method=method):
            trainings.append(1)
            return method(self, *args)

        monkeypatch.setattr(TokenSweep, name, counted)
    assert ablate.main(flags(caches, killed, *orders, *subset)) == 0
    assert len(trainings) == 24 - 12
    assert sorted((killed / "runs.jsonl").read_text().splitlines()) == sorted(lines)
    assert json.loads((killed / "ablation.json").read_text()) == summary


def test_groups_left_out_use_the_setting_that_was_tuned_on_the_other_cache(tmp_path):
    sets = ("set1", "set2")
    folders = [
        str(order_cache(tmp_path / name, number, 8, 8, sets=names))
        for number, (name, names) in enumerate({"a": sets, "b": sets[::-1]}.items(), 1)
    ]
    group = ["--group", r"(set\d_g\d+)_", "--lr", "1e-5", "1e-2", "--seeds", "1"]
    output = tmp_path / "out"
    assert ablate.main(flags(folders, output, *group)) == 0
    lines = (output / "runs.jsonl").read_text().splitlines()
    assert ablate.main(flags(folders, output, *group, "--leave-one-out")) == 0
    more = [json.loads(line) for line in (output / "runs.jsonl").read_text().splitlines()]
    more = more[len(lines) :]  # the tuning is shared
    assert len(more) == 4 and all(record["stage"] == "final_leave_one_out" for record in more)
    assert all(len(record["parts"]) == 4 for record in more)
    tuned = json.loads((output / "ablation_leave_one_out.json").read_text())["rows"][1]["tuning"]
    flat = {record["split"]: record["lr"] for record in more if record["row"] == "flat"}
    assert flat == {1: tuned["2"]["chosen"]["lr"], 2: tuned["1"]["chosen"]["lr"]}
    assert (output / "ablation.json").exists()
    with pytest.raises(UsageError, match="no other cache tests"):
        ablate.main(flags(folders[:1], output / "alone", *group, "--leave-one-out"))


def test_presets_run_and_mistakes_are_refused(caches, tmp_path):
    quick = ["--folds", "2", "--lr", "1e-3", "--epochs", "1", "--seeds", "1"]
    for name, rows in (("table1", 6), ("table2", 4)):  # tokens: no maps for the non-local block
        out = ["--output", str(tmp_path / name)]
        assert ablate.main(["--cache", caches[0], "--preset", name, *quick, *out]) == 0
        assert len(json.loads((tmp_path / name / "ablation.json").read_text())["rows"]) == rows
    record = json.loads((tmp_path / "table2" / "runs.jsonl").read_text().splitlines()[1])
    assert record["stage"] == "final"  # there was one setting, and nothing to choose
    with pytest.raises(UsageError, match="of one split"):
        ablate.main(flags([caches[0], caches[0]], tmp_path / "twice"))
    with pytest.raises(UsageError, match="begun with folds 2, not 3"):
        ablate.main(["--cache", caches[0], "--preset", "table1", "--folds", "3", *out])
    with pytest.raises(UsageError, match="no class fourth"):
        ablate.main(flags(caches, tmp_path / "wrong", "--subset", "order=fourth"))
    with pytest.raises(UsageError, match="--base lstm is none of average, flat"):
        ablate.main(flags(caches, tmp_path / "wrong", "--base", "lstm"))
    assert not (tmp_path / "wrong").exists()
    network = ["-d", "toy", "-a", "rgb_tiny3D16f", "--heads", "lstm"]
    for wrong in (
        [*network, "--epochs", "3"],
        *([*network, *more] for more in FOR_CACHES),
        ["--cache", caches[0], "--heads", "lstm", "--group", "("],
        ["--cache", caches[0], "--heads", "lstm", "--splits", "2"],
    ):
        with pytest.raises(SystemExit):
            ablate.main(wrong)
    for wrong in (["--heads", "lstm"], ["--cache", caches[0]], ["-d", "toy", "--heads", "lstm"]):
        with pytest.raises(SystemExit):
            ablate.main(wrong)


def test_an_earlier_tuning_in_place_of_tuning(caches, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert ablate.main(flags(caches, first)) == 0
    tuned = ["--tuned", str(first / "tuning.json"), "--epochs", "2"]
    assert ablate.main(flags(caches, second, *tuned)) == 0
    records = [json.loads(line) for line in (second / "runs.jsonl").read_text().splitlines()][1:]
    assert len(records) == 8 and all(record["stage"] == "final" for record in records)
    chosen = json.loads((first / "tuning.json").read_text())
    for record in records:
        assert record["lr"] == chosen[record["row"]][str(record["split"])]["chosen"]["lr"]
        assert record["epochs"] == 2 and len(record["train_losses"]) == 2
    assert not (second / "tuning.json").exists()
    with pytest.raises(UsageError, match="nothing was tuned for lstm on split 1"):
        ablate.main(flags(caches, tmp_path / "third", *tuned, "--heads", "lstm"))
    with pytest.raises(SystemExit):
        ablate.main(flags(caches, second, *tuned, "3"))


def test_two_ablations_do_not_share_a_folder(caches, tmp_path):
    output = tmp_path / "out"
    with owned(output), pytest.raises(UsageError, match=str(output)):
        ablate.main(flags(caches, output))
    assert not (output / "runs.jsonl").exists()


def test_whole_networks(tiny, tmp_path):
    data = ["--settings", str(tiny.settings), "--frames", str(tiny.frames), "-j", "0"]
    asked = ["-d", tiny.name, "-a", "rgb_tiny3D16f_FRMB", *data]
    asked += ["--heads", "average_sgd", "bert10", "--base", "average_sgd", "--seeds", "1"]
    orders = ["--time-order", "normal", "reversed", "--output", str(tmp_path / "out")]
    train = ["--", "--epochs", "1", "-b", "6", "--iter-size", "1"]
    assert ablate.main([*asked, *orders, *train]) == 0
    runs = tmp_path / "out" / "runs"
    before = (tmp_path / "out" / "ablation.json").read_text()
    assert (runs / "bert10_seed0" / "toy_rgb_tiny3D16f_bert10_FRMB_split1").is_dir()
    sgd = json.loads(
        (runs / "average_sgd_seed0/toy_rgb_tiny3D16f_FRMB_split1/args.json").read_text()
    )
    assert sgd["epochs"] == 1
    average, bert = json.loads(before)["rows"]
    assert average["test"]["normal"] == average["test"]["reversed"]
    assert sum(map(sum, bert["confusion"]["reversed"])) == 9
    assert ablate.main([*asked, *orders, *train]) == 0  # nothing is run again
    assert (tmp_path / "out" / "ablation.json").read_text() == before
    odd = ["-d", tiny.name, "-a", "rgb_tiny3D16f", *data, "--heads", "concatenation"]
    with pytest.raises(UsageError, match="published name of another network"):
        ablate.main([*odd, "--output", str(tmp_path / "odd"), *train])


def test_no_seeds_only_tune_and_say_the_flags(caches, tmp_path, capsys):
    argv = flags(caches, tmp_path, "--seeds", "0", "--lr", "1e-6", "1e-2")
    assert ablate.main(argv) == 0
    tuning = json.loads((tmp_path / "tuning.json").read_text())
    assert tuning["flat"]["2"]["chosen"]["lr"] == 1e-2
    assert [tried["lr"] for tried in tuning["flat"]["1"]["tried"]] == [1e-6, 1e-2]
    printed = capsys.readouterr().out
    assert "two_stream_bert2.py --cache --recipe few-videos --lr 0.01 " in printed
    assert not (tmp_path / "ablation.json").exists() and not (tmp_path / "scores").exists()


def test_two_streams_in_one_head_and_their_late_fusion(tiny, tmp_path):
    caches = {}
    for name, seed in (("rgb", 0), ("flow", 0), ("flow1", 1)):
        caches[name] = str(tmp_path / f"{name}_cache")
        made = ["-a", f"{name.rstrip('1')}_tiny3D16f", "--weights", "none", "--views", "2"]
        made += ["--no-ten-crop", "-j", "0", "--seed", str(seed), "--cache", caches[name]]
        assert cache_tokens.main([*tiny.flags, *made]) == 0
    quick = ["--heads", "average", "bert2_zero", "--folds", "2", "--lr", "1e-2", "--epochs", "3"]
    quick += ["--seeds", "2", "--time-order", "normal", "reversed"]

    def ablate_on(name, *cached):
        assert ablate.main(["--cache", *cached, *quick, "--output", str(tmp_path / name)]) == 0
        return json.loads((tmp_path / name / "ablation.json").read_text())

    # one table on joined tokens; its protocol tells both caches
    joined = ablate_on("joined", caches["rgb"], "--flow-cache", caches["flow"])
    abouts = [json.loads((tmp_path / f"{name}_cache/about.json").read_text()) for name in caches]
    hashes = [about["weights"]["sha256"] for about in abouts[:2]]
    assert joined["protocol"]["weights"] == "+".join(hashes) and hashes[0] != hashes[1]
    assert joined["protocol"]["tokens"] == "rgb_tiny3D16f+flow_tiny3D16f"
    lists = joined["protocol"]["lists"]["1"]
    assert list(lists.values()) == [about["fingerprint"] for about in abouts[:2]]
    average, bert = joined["rows"]
    assert average["test"]["normal"] == average["test"]["reversed"]
    lines = (tmp_path / "joined" / "runs.jsonl").read_text()
    assert len(lines.splitlines()) == 1 + 2 * 2
    assert ablate_on("joined", caches["rgb"], "--flow-cache", caches["flow"]) == joined
    assert (tmp_path / "joined" / "runs.jsonl").read_text() == lines  # nothing is run again
    # each stream alone, and late fusion beside the joined head
    for name in ("rgb", "flow"):
        alone = ablate_on(name, caches[name])["rows"][1]
        width = create_model("rgb_tiny3D16f", 3).width
        assert bert["parameters"] == alone["parameters"] + 2 * width
        assert bert["gmacs"] > alone["gmacs"]
    stem = "scores/bert2_zero_split1_seed1_normal.npz"
    files = [tmp_path / name / stem for name in ("rgb", "flow", "joined")]
    argv = [*map(str, files), "--fusion-weights", "1", "1", "0", "--json", str(tmp_path / "s.json")]
    assert summarize.main(argv) == 0
    *streams, both = (read_scores(file) for file in files)
    units = [file.scores / np.linalg.norm(file.scores, axis=1)[:, None] for file in streams]
    assert streams[0].videos == streams[1].videos == both.videos
    hits = [scores.argmax(axis=1) == both.labels for scores in (sum(units), both.scores)]
    summary = json.loads((tmp_path / "s.json").read_text())
    runs = {run["name"]: run["splits"][0] for run in summary["runs"]}
    assert [name.split()[-1] for name in runs][:3] == ["[rgb]", "[flow]", "[joined]"]
    found = [runs["fused 1 : 1 : 0"], list(runs.values())[2]]
    assert [run["top1"]["value"] for run in found] == [round(100 * own.mean(), 4) for own in hits]
    # what does not go together
    with pytest.raises(DataError, match="cannot join .*: seed 0 and 1$"):
        ablate_on("joined", caches["rgb"], "--flow-cache", caches["flow1"])
    with pytest.raises(UsageError, match="begun with tokens rgb_tiny3D16f.flow"):
        ablate_on("joined", caches["rgb"])
    for wrong in (
        ["--cache", caches["rgb"], "--flow-cache", caches["flow"], caches["flow"]],
        ["--cache", caches["rgb"], "--flow-cache", caches["flow"], "--seeds", "0"],
        ["-d", "toy", "-a", "rgb_tiny3D16f", "--flow-cache", caches["flow"]],
    ):
        with pytest.raises(SystemExit):
            ablate.main([*wrong, "--heads", "lstm"])
