"""Joined caches: the tokens are both caches' own, what does not fit is refused, and a head sees
both streams."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets import DataError
from datasets.records import VideoRecord
from datasets.sampling import random_offsets
from engine.ablation.heads import Setting, score_head, train_head
from engine.tokens.cache import CachedSubset, open_cache
from engine.tokens.joint import JoinedTokens, join_caches
from models import get_arch
from models.names import with_head
from tests.engine.ablation.order_tokens import ARCH, order_cache

FLOW = ARCH.replace("rgb", "flow")
VIEWS = {"train": 4, "seed": 0, "clips": "single", "crops": 2, "mirror": "plain"}
OTHER_VIEWS = {"train": 3, "seed": 1, "clips": "multi", "crops": 1, "mirror": "none"}


def small(folder, arch=FLOW, frames=19, **more):
    """A cache of 6 training and 3 test videos."""
    return open_cache(order_cache(folder, train=2, val=1, arch=arch, frames=frames, **more))


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    return small(tmp_path_factory.mktemp("rgb") / "cache", ARCH, 20)


def test_joined_tokens_are_both_caches_own(rgb, tmp_path):
    flow = small(tmp_path, views=VIEWS | {"mirror": "inverted"}, weights=weights("1"))
    joined = join_caches(rgb, flow)
    assert joined.view_shape == (16, 64) and joined.metadata["tokens"] == f"{ARCH}+{FLOW}"
    assert joined.metadata["weights"]["sha256"] == "0" * 64 + "+" + "1" * 64
    for subset, views in (("train", 4), ("val", 2), ("central", 1)):
        ours, theirs, own = (getattr(c, subset) for c in (rgb, flow, joined))
        assert len(own.tokens) == len(ours.tokens) and own.records == ours.records
        assert (own.labels == ours.labels).all()
        for video, tokens in enumerate(own.tokens):
            assert tokens.shape == (views, 16, 64) and tokens.dtype == np.float16
            assert (tokens[:, :8] == ours.tokens[video]).all()
            assert (tokens[:, 8:] == theirs.tokens[video]).all()
            assert not (tokens[:, :8] == tokens[:, 8:]).any(axis=1).all()
    some = joined.train.take([4, 1])
    assert (some.tokens[0] == joined.train.tokens[4]).all()
    assert [record.folder for record in some.records] == [
        rgb.train.records[4].folder,
        rgb.train.records[1].folder,
    ]


def weights(digit):
    return {"path": None, "sha256": digit * 64}


def test_a_clip_that_flow_lacks_is_left_out(tmp_path):
    """35 frames are two clips of 16, and 34 flow images are one."""
    multi = {"views": VIEWS | {"clips": "multi"}}
    rgb = small(tmp_path / "rgb", ARCH, 35, **multi)
    flow = small(tmp_path / "flow", frames=34, **multi)
    assert (rgb.val.tokens[0].shape, flow.val.tokens[0].shape) == ((4, 8, 64), (2, 8, 64))
    joined = join_caches(rgb, flow)
    assert (joined.val.tokens[2][:, :8] == rgb.val.tokens[2][:2]).all()
    assert (joined.val.tokens[2][:, 8:] == flow.val.tokens[2]).all()
    assert (joined.central.tokens[2][:, :8] == rgb.central.tokens[2]).all()
    assert not (rgb.central.tokens[2] == rgb.val.tokens[2][:1]).all()
    longer = small(tmp_path / "longer", frames=80, **multi)
    with pytest.raises(DataError, match="test views of 'first_then_second/val_g0_0' 4 and 8"):
        join_caches(rgb, longer)


def test_views_of_one_seed_are_alike_in_both_streams():
    for count in range(67, 300, 7):
        for seed in range(20):
            ours, theirs = (np.random.default_rng((seed, count)) for _ in "ab")
            (rgb,) = random_offsets(count, 64, 1, ours)
            (flow,) = random_offsets(count - 1, 64, 1, theirs)
            assert 0 <= rgb - flow <= 1
            assert ours.bit_generator.state == theirs.bit_generator.state  # the same crop and flip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dataset": "other"}, "dataset order and other$"),
        ({"split": 2}, "split 1 and 2"),
        ({"class_names": ["a", "b", "c"]}, "classes .*'third'] and .*'c']"),
        ({"arch": ARCH}, "flow is of rgb, not of flow"),
        ({"arch": FLOW, "frames": 33}, None),  # one clip from the middle, whatever the length
        *(({"views": VIEWS | {key: value}}, key) for key, value in OTHER_VIEWS.items()),
    ],
)
def test_what_does_not_fit_is_refused(rgb, tmp_path, more, message):
    words = {"train": "training views 4 and 3", "clips": "test clips single and multi"}
    words |= {"seed": "seed 0 and 1$", "crops": "crops 2 and 1$", "mirror": "flips True and False$"}
    flow = small(tmp_path / "flow", **more)
    if message is None:
        assert len(join_caches(rgb, flow).val.tokens) == 3
        return
    with pytest.raises(DataError, match=rf"cannot join .*: {words.get(message, '.*' + message)}"):
        join_caches(rgb, flow)


def test_other_lists_and_tokens_are_refused(rgb, tmp_path):
    more = open_cache(order_cache(tmp_path / "more", train=3, val=1, arch=FLOW, frames=19))
    with pytest.raises(DataError, match="the 'train' lists, first in None and first_then_second/t"):
        join_caches(rgb, more)
    flow = small(tmp_path / "flow")
    record = replace(flow.val.records[1], label=0)
    records = [flow.val.records[0], record, flow.val.records[2]]
    relabelled = replace(flow, val=replace(flow.val, records=records))
    with pytest.raises(DataError, match="'val' lists, first in (.*) 1 and (.*) 0$"):
        join_caches(rgb, relabelled)
    with pytest.raises(DataError, match=r"tokens \(T', D\) \(8, 64\) and \(8, 128\)"):
        join_caches(rgb, replace(flow, view_shape=(8, 128)))
    with pytest.raises(DataError, match="holds maps, not tokens"):
        join_caches(rgb, replace(flow, view_shape=(64, 8, 4, 4)))
    with pytest.raises(DataError, match="is of rgb, not of flow"):
        join_caches(flow, rgb)
    other = json.loads(json.dumps(flow.metadata)) | {"frames": 32}
    with pytest.raises(DataError, match="frames of a clip 16 and 32"):
        join_caches(rgb, replace(flow, metadata=other))


def one_event(videos, rng):
    """One event at any time, in RGB or in flow: the class says in which."""
    event = np.random.default_rng(7).normal(0, 2, 64)
    streams = rng.normal(0, 0.3, (2, videos, 2, 8, 64))
    labels = np.arange(videos) % 2
    streams[labels, np.arange(videos), :, rng.integers(0, 8, videos)] += event
    records = [VideoRecord(f"v{n}", 20, int(label), "") for n, label in enumerate(labels)]
    rgb, flow = streams.astype(np.float16)
    return CachedSubset(records, JoinedTokens(list(rgb), list(flow)), labels)


def test_bert_learns_which_stream_an_event_is_in_and_averaging_cannot(rgb, tmp_path):
    rng = np.random.default_rng(0)
    train, val = one_event(48, rng), one_event(32, rng)
    cache = join_caches(rgb, small(tmp_path / "flow"))
    cache = replace(cache, metadata=cache.metadata | {"class_names": ["rgb", "flow"]})
    base, found = replace(get_arch(ARCH), streams=2), {}
    for head in ("", "bert2"):
        spec, setting = with_head(base, head), Setting("adamw", 3e-3, 1e-3, 30)
        model, _ = train_head(spec, 2, train, setting, 8, 0, torch.device("cpu"))
        for order in ("normal", "reversed"):
            scores, _ = score_head(model, cache, val, order)
            found[head, order] = (scores.argmax(axis=1) == val.labels).mean()
    assert found["", "normal"] == found["", "reversed"] <= 0.75
    # Each stream is reversed in itself: the event stays in its stream.
    assert found["bert2", "normal"] > 0.9 and found["bert2", "reversed"] > 0.9
