"""The protocol of ablations, on tokens in which only the order of events tells two classes."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import DataError
from engine import UsageError
from engine.ablation.heads import Setting, head_size, score_head, tokens_of, train_head, two_rates
from engine.ablation.protocol import (
    HeadRow,
    Ledger,
    TriedSetting,
    best_of,
    custom_row,
    grouped_folds,
    groups_of,
    preset,
    rows_of,
    tuned_setting,
    widened,
)
from engine.ablation.report import (
    Final,
    confusion,
    hit_rates,
    markdown,
    mean_and_sd,
    paired_gain,
    subsets_of,
    summarize_row,
)
from engine.ablation.sweeps import TokenSweep, views_elsewhere
from engine.cli.flag_types import time_order
from engine.config import AblationConfig, SpeedConfig
from engine.speed import choose_speed
from engine.speed.presets import computes_bf16
from engine.testing.score_files import ScoreFile, read_scores
from engine.testing.token_order import TimeOrder
from engine.tokens.cache import open_cache
from models import ArchError, create_model, get_arch
from models.names import HEADS, with_head
from scripts import ablate
from tests.engine.ablation.order_tokens import ARCH, CLASSES, order_cache

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return open_cache(order_cache(tmp_path_factory.mktemp("order") / "cache"))


@pytest.fixture(scope="module")
def trained(cache):
    """Head -> network, on classes that average tokens cannot tell apart."""
    return {
        head: train_head(
            with_head(get_arch(ARCH), head),
            len(CLASSES),
            cache.train,
            Setting("adamw", lr, 1e-3, 30),
            8,
            0,
            CPU,
        )[0]
        for head, lr in {"": 1e-2, "flat": 3e-3, "lstm": 1e-2, "bert2": 3e-3}.items()
    }


def predicted(model, cache, order="normal"):
    return score_head(model, cache, cache.val, order)[0].argmax(axis=1)


@pytest.mark.parametrize("head", ["flat", "lstm", "bert2"])
def test_heads_that_model_time_tell_orders_apart_and_reversed_predict_each_the_other(
    cache, trained, head
):
    labels = cache.val.labels
    assert (predicted(trained[head], cache) == labels).mean() > 0.9
    backwards = predicted(trained[head], cache, "reversed")
    swapped = np.array([1, 0, 2])[labels]
    assert (backwards == swapped).mean() > 0.9


def test_averaging_cannot(cache, trained):
    labels = cache.val.labels
    found = predicted(trained[""], cache)
    assert (found[labels == 2] == 2).all()
    assert 0.25 <= (found == labels)[labels < 2].mean() <= 0.75
    for order in ("reversed", "shuffled"):
        assert (predicted(trained[""], cache, order) == found).all()


def shuffle(tokens, rows: list[int], order: TimeOrder | None = None):
    order = order or TimeOrder("shuffled")
    order.start(rows)
    return order(tokens)


def test_orders_are_exact():
    tokens = torch.arange(4 * 8 * 3).reshape(4, 8, 3)
    assert torch.equal(TimeOrder("normal")(tokens), tokens)
    assert torch.equal(TimeOrder("reversed")(tokens), tokens[:, list(range(7, -1, -1))])
    shuffled = shuffle(tokens, [0] * 4)
    assert torch.equal(shuffled.sort(dim=1).values, tokens)  # the same tokens, each clip its own
    assert not torch.equal(shuffled, tokens)
    orders = {tuple((clip[:, 0] - clip[:, 0].min()).tolist()) for clip in shuffled}
    assert len(orders) > 1
    again = TimeOrder("shuffled")  # the batches do not matter
    parts = [shuffle(tokens[:1], [0], again), shuffle(tokens[1:], [0] * 3, again)]
    assert torch.equal(torch.cat(parts), shuffled)
    # another video has orders of its own, whatever came before
    other = shuffle(tokens, [1] * 4)
    assert torch.equal(shuffle(tokens, [1] * 4, again), other)
    assert not torch.equal(other, shuffled)
    assert torch.equal(TimeOrder("7,0,1,2,3,4,5,6")(tokens), tokens.roll(1, 1))
    with pytest.raises(ArchError, match="3 places for 8 tokens"):
        TimeOrder("2,1,0")(tokens)


def test_a_network_in_another_order_is_its_head_on_permuted_tokens():
    clips = torch.rand(2, 3, 16, 56, 56)
    for head, order, places in (
        ("bert10_FRMB", "normal", range(8)),
        ("bert10_FRMB", "reversed", range(7, -1, -1)),
        ("FRMB_NLB_concatenation", "4,5,6,7,0,1,2,3", [4, 5, 6, 7, 0, 1, 2, 3]),
    ):
        model = create_model(f"rgb_tiny3D16f_{head}", 5).eval()
        with torch.inference_mode():
            expected = model.classify_tokens(model.forward_tokens(clips)[:, list(places)])
            reorder = TimeOrder(order)
            assert torch.equal(model(clips, reorder), expected)
            assert torch.equal(model.classify(model.encode(clips), reorder), expected)
            usual = model.classify_tokens(model.forward_tokens(clips))
            assert torch.equal(model(clips), usual)


def test_maps_are_reordered_in_time(monkeypatch):
    torch.manual_seed(0)
    model = create_model("rgb_tiny3D16f_FRMB_NLB_concatenation", 3).eval()
    model.from_encoded = True
    maps = torch.rand(2, model.width, 8, 2, 2).half()
    seen = []
    classify = type(model).classify_tokens
    monkeypatch.setattr(
        type(model), "classify_tokens", lambda net, own: seen.append(own) or classify(net, own)
    )
    with torch.inference_mode():
        scores = [model(tokens_of(model, maps), TimeOrder(o)) for o in ("normal", "reversed")]
    assert seen[0].shape == (2, 8, model.width)
    assert torch.equal(seen[1], seen[0].flip(1))
    assert not torch.allclose(*scores)


def test_maps_become_tokens_for_heads_that_do_not_begin_with_them():
    model = create_model(ARCH, 3)
    maps = torch.rand(2, 64, 8, 4, 4).half()
    expected = maps.float().mean(dim=(3, 4)).transpose(1, 2)
    torch.testing.assert_close(tokens_of(model, maps), expected)


def test_two_pathways_are_both_reordered():
    tokens = {
        "slow": torch.arange(6.0).reshape(1, 3, 2),
        "fast": torch.arange(8.0).reshape(1, 4, 2),
    }
    found = TimeOrder("reversed")(tokens)
    assert all(torch.equal(found[path], own.flip(1)) for path, own in tokens.items())
    both = {"slow": torch.arange(8.0)[None, :, None], "fast": torch.arange(8.0)[None, :, None]}
    shuffled = shuffle(both, [0])
    assert torch.equal(shuffled["slow"], shuffled["fast"])


@pytest.mark.parametrize("text", ["sideways", "0,2", "1,2,3", "0,0", "", "0,1,", "-1,0"])
def test_orders_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be normal, reversed"):
        time_order(text)


def test_folds_never_split_a_group_and_are_of_like_size():
    names = [f"class/set1_{i}_{i % 7}_{i % 3}" for i in range(60)]
    groups = groups_of(names, re.compile(r"_(\d+)_\d$"))
    assert groups[8] == "1"
    folds = grouped_folds(groups, 3)
    for group in set(groups):
        assert len({fold for fold, own in zip(folds, groups, strict=True) if own == group}) == 1
    assert np.bincount(folds).min() >= 16 and set(folds) == {0, 1, 2}
    assert groups_of(names, None)[:2] == ["set1 0", "set1 1"]  # names like UT-Interaction's
    assert groups_of(["a/one", "b/two"], None) == ["a/one", "b/two"]
    with pytest.raises(UsageError, match="take fewer --folds"):
        grouped_folds(groups, 8)
    with pytest.raises(UsageError, match="matches nothing in 'class/set1_0"):
        groups_of(names, re.compile("_g(.)"))


def test_presets_are_the_papers_and_build_on_every_backbone():
    for name, numbers in (
        ("table1", [74.46, 75.99, None, 76.84, 74.18, 76.36, 77.49]),
        ("table2", [76.07, 76.97, 77.49, 77.24]),
    ):
        assert [row.paper for row in preset(name, "resneXt3D")] == numbers
        rows = rows_of(name, [], get_arch(ARCH), maps=True)
        for row, spec in rows.items():
            parameters, gmacs = head_size(spec, 6)
            assert parameters > 0 and gmacs > 0, row
    assert [row.key for row in preset("table1", "I3D")][-1] == "bert2"
    assert len(rows_of("table1", ["lstm_sgd"], get_arch(ARCH), maps=False)) == 7
    layers = [(s.layers, s.heads, s.class_token) for s in rows.values()]
    assert layers == [(1, 8, False), (1, 1, True), (1, 8, True), (2, 8, True)]
    row = custom_row("bert2_1head_sgd")
    assert (row.head, row.optimizer, row.key) == ("bert2_1head", "sgd", "bert2_1head_sgd")
    with pytest.raises(UsageError, match="no head 'transformer'"):
        custom_row("transformer")
    with pytest.raises(ArchError, match="one pathway"):
        with_head(get_arch("rgb_slowfast64f_50"), "lstm")


def test_size_of_heads():
    average = head_size(with_head(get_arch(ARCH), ""), 6)
    assert average == (64 * 6 + 6, 64 * 6 / 1e9)
    flat = head_size(with_head(get_arch(ARCH), "flat"), 6)
    assert flat == (8 * 64 * 6 + 6, 8 * 64 * 6 / 1e9)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_has_a_size(head):
    parameters, gmacs = head_size(with_head(get_arch(ARCH), head), 6)
    assert parameters > 64 * 6 and gmacs > 0


def test_tokens_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"takes 8 tokens of 64, these are \(4, 64\)"):
        tokens_of(create_model(ARCH, 3), torch.zeros(2, 4, 64))


def sweep(cache, path, **config):
    config = {"fold_seeds": 1, "budget": 1} | config
    return TokenSweep(Ledger(path / "runs.jsonl", {}), AblationConfig(**config), cache, CPU)


def test_tuning_chooses_by_held_out_videos_alone(cache, tmp_path):
    grid = {"lr": (1e-2, 1e-4), "epochs": (3,)}
    tuned = sweep(cache, tmp_path, group=re.compile(r"_g(\d+)_"), folds=4, **grid)
    setting, tried = tuned.tune(HeadRow("flat", "flat"), with_head(get_arch(ARCH), "flat"))
    assert setting.lr == 1e-2 and [entry["lr"] for entry in tried] == [1e-2, 1e-4]
    assert tried[0]["top1"] > tried[1]["top1"]
    folds = [record for record in tuned.ledger.records if record["lr"] == 1e-2]
    assert [record["fold"] for record in folds] == [0, 1, 2, 3]
    right = sum(record["right"] for record in folds)
    assert tried[0]["top1"] == round(100 * right / len(tuned.folds), 2)


def test_a_diverging_setting_loses_and_does_not_stop_the_sweep(cache, tmp_path):
    tuned = sweep(cache, tmp_path, folds=2, lr=(1e35, 1e-2), weight_decay=(0.0,), epochs=(2,))
    row = HeadRow("flat", "flat", "sgd")
    setting, _ = tuned.tune(row, with_head(get_arch(ARCH), "flat"))
    assert setting.lr == pytest.approx(1.0)  # SGD's rates are 100 times the grid's
    assert tuned.ledger.records[0]["loss"] is None


def test_each_group_is_tested_by_networks_of_all_others(tmp_path):
    names = ("set1", "set2")
    caches = [
        open_cache(order_cache(tmp_path / str(n), n, train=8, val=8, sets=sets))
        for n, sets in ((1, names), (2, names[::-1]))
    ]
    split, views = views_elsewhere(caches[0], caches)
    assert split == 2 and views.tokens[0].shape[0] == 2  # the test's views, not training's four
    assert [v.folder for v in views.records] == [v.folder for v in caches[0].train.records]
    config = AblationConfig(group=re.compile(r"(set\d_g\d+)_"), leave_one_out=True, folds=2)
    own = TokenSweep(Ledger(tmp_path / "runs.jsonl", {}), config, caches[0], CPU, test=views)
    parts = own._parts(seed=0)
    assert len(parts) == 4  # groups of two videos a class
    for learned, tested in parts:
        assert len(set(own.groups[tested])) == 1
        assert not set(own.groups[learned]) & set(own.groups[tested])
        assert len(learned) + len(tested) == 24
    assert sorted(np.concatenate([tested for _, tested in parts])) == list(range(24))
    row, setting = HeadRow("flat", "flat"), Setting("adamw", 3e-3, 1e-3, 20)
    record = own.final(row, with_head(get_arch(ARCH), "flat"), setting, 0)
    found = read_scores(tmp_path / record["scores"]["normal"])
    assert found.videos == tuple(v.folder for v in views.records) and len(record["parts"]) == 4
    assert (found.scores.argmax(axis=1) == found.labels).mean() > 0.85
    # what the last group gets comes from a network that never saw it
    learned, tested = parts[-1]
    train = caches[0].train.take(learned)
    model, _ = train_head(with_head(get_arch(ARCH), "flat"), 3, train, setting, 16, 0, CPU)
    assert np.array_equal(score_head(model, own.cache, views.take(tested))[0], found.scores[tested])
    with pytest.raises(UsageError, match="no other cache tests the training videos"):
        views_elsewhere(caches[0], caches[:1])


def test_shots_are_so_many_videos_of_each_class_drawn_by_the_seed(cache, tmp_path):
    few = sweep(cache, tmp_path, shots=2)
    (first, tested), *others = few._parts(seed=0)
    assert not others and list(tested) == list(range(len(cache.val.records)))
    assert np.bincount(cache.train.labels[first]).tolist() == [2, 2, 2]
    assert np.array_equal(first, few._parts(0)[0][0])
    assert not np.array_equal(first, few._parts(1)[0][0])
    row, setting = HeadRow("average", ""), Setting("adamw", 1e-2, 1e-3, 2)
    record = few.final(row, with_head(get_arch(ARCH), ""), setting, 0)
    assert record["stage"] == "final_2_shots" and "_2_shots_split1" in record["scores"]["normal"]
    whole = sweep(cache, tmp_path).final(row, with_head(get_arch(ARCH), ""), setting, 0)
    assert whole["scores"] != record["scores"]  # which are other trainings


def test_a_head_may_bring_its_reduction():
    row = custom_row("bert2_FRMB_sgd")
    assert (row.head, row.reduction, row.optimizer) == ("bert2", "FRMB", "sgd")
    assert row.key == "bert2_FRMB_sgd" and custom_row("average_FRAB").head == ""
    base = get_arch("rgb_I3D64f")
    rows = rows_of(None, ["bert2_FRMB", "bert2"], base, maps=True)
    assert [spec.reduction for spec in rows.values()] == ["FRMB", None]
    with pytest.raises(UsageError, match="bert2_FRMB: FRMB is a part of the backbone"):
        rows_of(None, ["bert2_FRMB"], base, maps=True, reducible=False)
    with pytest.raises(ArchError, match="no reduction block"):
        rows_of(None, ["bert10_FRMB"], get_arch("rgb_s3d64f"), maps=True)


def test_a_reduction_takes_the_setting_of_its_head(tmp_path):
    file, setting = tmp_path / "tuning.json", Setting("adamw", 1e-4, 1e-3, 60)
    file.write_text(json.dumps({"bert2": {"1": {"chosen": vars(setting)}}}))
    found = tuned_setting([file], custom_row("bert2_FRMB"), split=1, epochs=20)
    assert found == Setting("adamw", 1e-4, 1e-3, 20)
    with pytest.raises(UsageError, match="tuning.json: nothing was tuned for bert2 on split 2"):
        tuned_setting([file], custom_row("bert2"), split=2, epochs=20)


def test_stages_may_learn_at_a_rate_of_their_own(cache, tmp_path):
    model = create_model("rgb_tiny3D16f_bert10_FRMB", 3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    new, stages = two_rates(model, 1e-3, 1e-5)
    assert (new["lr"], stages["lr"]) == (1e-3, 1e-5)
    found = [{names[id(parameter)] for parameter in own["params"]} for own in (new, stages)]
    assert found[0] | found[1] == set(names.values()) and not found[0] & found[1]
    assert {"fc_action.weight", "bert.clsToken"} <= found[0]
    block = {name for name in names.values() if name.startswith(tuple(model.replaced_blocks()))}
    assert block and block <= found[0]  # FRMB's block is new
    assert found[1] and all(name.startswith("features.") for name in found[1])
    folder = str(cache.folder)
    with pytest.raises(UsageError, match="--stage-lr is for caches of maps"):
        ablate.main(["--cache", folder, "--heads", "flat", "--stage-lr", "1e-5"])


@pytest.mark.skipif(not computes_bf16(CPU), reason="this CPU computes no bfloat16")
def test_a_head_trains_in_bfloat16(cache):
    spec, setting = with_head(get_arch(ARCH), "bert10"), Setting("adamw", 1e-3, 1e-3, 3)
    speed = choose_speed(SpeedConfig("fast"), CPU)
    _, exact = train_head(spec, 3, cache.train, setting, 8, 0, CPU)
    model, fast = train_head(spec, 3, cache.train, setting, 8, 0, CPU, speed=speed)
    assert fast != exact and np.allclose(fast, exact, rtol=0.02)
    assert next(model.parameters()).dtype == torch.float32


def test_the_same_seed_gives_the_same_network(cache):
    spec, setting = with_head(get_arch(ARCH), "bert10"), Setting("adamw", 1e-3, 1e-3, 1)
    states = [
        train_head(spec, 3, cache.train, setting, 8, seed, CPU)[0].state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_the_ledger_runs_nothing_twice_and_survives_a_cut(tmp_path):
    path = tmp_path / "deep" / "runs.jsonl"
    ledger, runs = Ledger(path, {"folds": 5}), []

    def train():
        runs.append(1)
        return {"right": len(runs)}

    assert ledger.once({"seed": 0}, train) == {"seed": 0, "right": 1}
    assert ledger.once({"seed": 0}, train) == {"seed": 0, "right": 1}
    assert ledger.once({"seed": 1}, train)["right"] == 2
    text = path.read_text()
    path.write_text(text[:-5])  # as a kill would leave it
    again = Ledger(path, {"folds": 5})
    assert again.records == [{"seed": 0, "right": 1}]
    again.once({"seed": 1}, train)
    files = {"scores": {"normal": "gone.npz"}}  # a record whose files are gone is made again
    for _ in range(2):
        again.once({"seed": 2}, lambda: runs.append(2) or files)
    assert runs[3:] == [2, 2]
    assert len(runs[:3]) == 3 and len(Ledger(path, {"folds": 5}).records) == 4
    with pytest.raises(UsageError, match="begun with folds 5, not 4"):
        Ledger(path, {"folds": 4})
    path.write_text("nonsense\n")
    with pytest.raises(UsageError, match="no list of trainings"):
        Ledger(path, {})


def final(split, seed, labels, predictions, train_top1) -> Final:
    """A test whose scores say the predictions."""
    scores = np.eye(2, dtype=np.float32)[predictions]
    videos = tuple(f"v{number}" for number in range(len(labels)))
    file = ScoreFile(Path("x"), videos, np.array(labels), scores, ("a", "b"), None, None, {})
    return Final(split, seed, {"normal": file}, train_top1)


def finals():
    """Two splits, two seeds, four and two videos."""
    return [
        final(1, 0, [0, 0, 1, 1], [0, 0, 1, 1], 100.0),  # 100
        final(1, 1, [0, 0, 1, 1], [0, 1, 1, 0], 100.0),  # 50
        final(2, 0, [0, 1], [0, 0], 50.0),  # 50
        final(2, 1, [0, 1], [0, 0], 50.0),  # 50
    ]


def test_statistics():
    found = mean_and_sd(hit_rates(finals(), "normal"))
    assert found["splits"][1] == {"mean": 75.0, "sd": 35.36, "values": [100.0, 50.0]}
    assert found["splits"][2] == {"mean": 50.0, "sd": 0.0, "values": [50.0, 50.0]}
    assert (found["mean"], found["sd"]) == (62.5, 17.68)  # of 75 and 50, the seeds' means
    only = mean_and_sd(hit_rates(finals(), "normal", [1]))
    assert only["splits"][1]["values"] == [100.0, 50.0] and only["splits"][2]["mean"] == 0
    assert confusion(finals(), "normal") == [[5, 1], [3, 3]]
    assert mean_and_sd(hit_rates(finals()[::2], "normal"))["sd"] is None


def test_paired_gain_is_over_videos():
    hits = {1: np.array([[1, 1, 1, 0]], bool), 2: np.array([[1, 1]], bool)}
    base = {1: np.array([[1, 0, 1, 0]], bool), 2: np.array([[1, 1]], bool)}
    gain = paired_gain(hits, base)
    assert gain["points"] == 12.5  # the mean of 25 and 0
    low, high = gain["interval"]
    assert low == 0 and 25 <= high <= 50
    assert paired_gain(hits, hits) == {"points": 0.0, "interval": [0.0, 0.0]}


def test_the_table(cache):
    subsets = subsets_of(["order=first_then_second,second_then_first"], CLASSES)
    assert subsets == {"top-1": None, "order": [0, 1], "other classes": [2]}
    with pytest.raises(UsageError, match="no class fourth"):
        subsets_of(["order=fourth"], CLASSES)
    rows = [
        summarize_row(row, finals(), finals(), {"top-1": None}, (2_000_000, 0.5), {})
        for row in (HeadRow("average", "", paper=75.99), HeadRow("BERT", "bert10"))
    ]
    lines = markdown({"rows": rows, "base": "average"}).splitlines()
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:4] == ["average", "2.000", "0.5", "75.0"]
    assert cells[4:] == ["75.00 ± 35.36", "50.00 ± 0.00", "62.50 ± 17.68", "", "75.99"]
    assert "+0.00 [+0.00, +0.00]" in lines[3]
    json.dumps(rows)


def tried(lr, epochs, correct, loss):
    return TriedSetting(Setting("adamw", lr, 1e-3, epochs), correct, loss)


def test_a_tie_is_decided_by_the_loss():
    settings = [tried(1e-3, 30, 9, 0.5), tried(1e-4, 30, 9, 0.4), tried(1e-5, 30, 8, 0.1)]
    assert best_of(settings).setting.lr == 1e-4


def test_the_grid_widens_where_the_best_lies_on_its_edge_and_the_loss_falls():
    settings = [tried(1e-4, 30, 9, 0.4), tried(1e-3, 30, 8, 0.5)]
    assert [s.lr for s in widened(settings, 5)] == [3.3e-5]
    assert widened(settings, 1) == widened(settings, 2) == []
    # not where the loss rises again, though more videos are correct
    assert widened([tried(1e-4, 30, 9, 0.6), tried(1e-3, 30, 8, 0.5)], 5) == []
    # nor inside the grid
    inside = [tried(1e-5, 30, 7, 0.9), *settings]
    assert widened([*inside[:1], tried(1e-4, 30, 9, 0.4), inside[2]], 9) == []


def test_epochs_widen_upwards_alone():
    settings = [tried(1e-4, 30, 8, 0.5), tried(1e-4, 60, 9, 0.4)]
    assert [s.epochs for s in widened(settings, 3)] == [120]
    assert widened([tried(1e-4, 30, 9, 0.4), tried(1e-4, 60, 8, 0.5)], 3) == []


def test_a_budget_and_seeds_of_folds_reach_the_ledger(tmp_path):
    flags = ["--cache", str(order_cache(tmp_path / "c")), "--heads", "average", "--seeds", "0"]
    flags += ["--folds", "2", "--fold-seeds", "2", "--lr", "1e-6", "1e-5", "--epochs", "1"]
    flags += ["--budget", "4", "--output", str(tmp_path / "out")]
    assert ablate.main(flags) == 0
    lines = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()[1:]
    records = [json.loads(line) for line in lines]
    settings = {(r["lr"], r["epochs"]) for r in records}
    assert 2 < len(settings) <= 4 and len(records) == 4 * len(settings)
