"""Deleting tokens costs what the formula says; attention trained on order is faithful."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import UsageError
from engine.ablation.heads import Setting, tokens_of, train_head
from engine.explaining.faithfulness import (
    DRAWS,
    Deletions,
    delete_tokens,
    deletion_cells,
    deletion_costs,
    measure_deletions,
    summarize_deletions,
)
from engine.explaining.reasons import log_odds
from engine.loading import ClipViews
from engine.testing.stream import Stream, cached_clips
from engine.tokens.cache import open_cache
from engine.tokens.dataset import cached_split
from models import ArchError, create_model, get_arch
from models.names import with_head
from tests.engine.ablation.order_tokens import ARCH, CLASSES, order_cache

CPU = torch.device("cpu")


def test_a_deleted_token_is_the_mean_of_those_that_stay():
    tokens = torch.arange(8.0).reshape(1, 4, 2)
    deleted = delete_tokens(tokens, torch.tensor([[1, 3], [0, 2]]))
    assert deleted[0].tolist() == [[0, 1], [2, 3], [4, 5], [2, 3]]
    assert deleted[1].tolist() == [[4, 5], [2, 3], [4, 5], [6, 7]]
    assert tokens.flatten().tolist() == [*range(8)]


def test_costs_are_those_of_the_most_random_and_least_attended_tokens():
    torch.manual_seed(0)
    model = create_model("rgb_tiny3D16f_bert10_FRMB", 4).eval()
    tokens = torch.randn(1, 8, 64)
    costs = deletion_costs(model, tokens, seed=3)
    assert list(costs) == [1, 2, 3, 4] and all(own.shape == (3,) for own in costs.values())
    with torch.no_grad():
        order = model.token_attention(tokens)[0, :, 0, 1:].mean(0).argsort(descending=True)
        whole = model.classify_tokens(tokens)
        target = int(whole.argmax())

        def cost(places: torch.Tensor) -> float:
            logits = model.classify_tokens(delete_tokens(tokens, places[None]))
            return (log_odds(whole, target) - log_odds(logits, target)).item()

        for number, (most, _, least) in costs.items():
            assert most == pytest.approx(cost(order[:number]), abs=1e-5)
            assert least == pytest.approx(cost(order[-number:]), abs=1e-5)
        singles = [cost(torch.tensor([place])) for place in range(8)]
    assert min(singles) < costs[1][1] < max(singles)
    again = deletion_costs(model, tokens, seed=3)
    assert all((again[number] == costs[number]).all() for number in costs)
    assert deletion_costs(model, tokens, seed=4)[1][1] != costs[1][1]


def test_two_pathways_lose_equal_shares():
    model = create_model("rgb_slowfast64f_50_bert10_FRMB_late", 3).eval()
    tokens = {"slow": torch.randn(1, 8, 512), "fast": torch.randn(1, 32, 256)}
    asked = []
    classify = model.classify_tokens
    model.classify_tokens = lambda own: asked.append(own) or classify(own)
    assert list(deletion_costs(model, tokens, seed=0)) == [1, 2, 3, 4]
    whole, *changed = asked
    for number, own in enumerate(changed, 1):
        for path, count in (("slow", number), ("fast", 4 * number)):
            assert len(own[path]) == 2 + DRAWS
            differs = (own[path] != whole[path]).any(dim=2).sum(dim=1)
            assert (differs == count).all()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return open_cache(order_cache(tmp_path_factory.mktemp("order") / "cache"))


@pytest.fixture(scope="module")
def stream(cache):
    """A BERT head trained on tokens of which two of eight say the class, and its test."""
    spec, setting = with_head(get_arch(ARCH), "bert2"), Setting("adamw", 3e-3, 1e-3, 30)
    model, _ = train_head(spec, len(CLASSES), cache.train, setting, 8, 0, CPU)
    return Stream(
        spec=spec,
        split=cached_split(cache),
        model=model,
        device=CPU,
        flip=cache.metadata["views"]["mirror"],
        checkpoint=Path(),
        read=partial(cached_clips, cache.val, 1, 1),
        prepare=partial(tokens_of, model),
        batch_size=8,
    )


def test_attention_of_a_network_trained_for_order_is_faithful(stream):
    found = measure_deletions(stream)
    summary = summarize_deletions(found)
    assert summary["videos"] == 24 and found.tokens == 8 and not stream.unscored
    row = summary["rows"][1]  # the two events
    low, high = row["interval"]
    assert row["deleted"] == 2 and 0 < low < row["difference"] < high
    assert row["most"] > row["random"] > row["least"]
    assert row["difference"] == pytest.approx(row["most"] - row["random"])
    head, cells = deletion_cells(summary)
    assert len(head) == len(cells[0]) == 5 and "[+" in cells[1][4]


def test_attention_that_says_nothing_is_not_called_faithful():
    costs = np.random.default_rng(0).normal(1, 1, (40, 3))  # no kind costs more than another
    low, high = summarize_deletions(Deletions({1: costs}, 2))["rows"][0]["interval"]
    assert low < 0 < high
    (single,) = summarize_deletions(Deletions({1: costs[:1]}, 2))["rows"]
    assert single["interval"] is None


def test_a_video_that_cannot_be_read_is_named_and_left_out(stream):
    def read(rows):
        for clip in stream.read(rows):
            yield ClipViews(clip.row, (), "its file is damaged") if clip.row == 3 else clip

    damaged = replace(stream, read=read, unscored={})
    assert len(measure_deletions(damaged).costs[1]) == 23
    assert damaged.unscored == {stream.split.val[3].folder: "its file is damaged"}
    nothing = replace(stream, read=lambda rows: iter([ClipViews(0, (), "damaged")]), unscored={})
    with pytest.raises(UsageError, match="not one video"):
        measure_deletions(nothing)


@pytest.mark.parametrize("head", ["lstm", "bert10_noclass"])
def test_a_head_without_class_token_is_refused(head):
    model = create_model(with_head(get_arch(ARCH), head).name, 3).eval()
    with pytest.raises(ArchError, match="no class token|no BERT head"):
        deletion_costs(model, torch.randn(1, 8, 64), seed=0)
