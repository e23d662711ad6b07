"""Token caches: tokens stand for the backbone, and files that are not whole are refused."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from datasets import DataError, create_dataset
from datasets.clips import IGNORED, ClipDataset
from datasets.samplers import Padding
from engine import data as build
from engine.config import DataConfig
from engine.files import CheckpointError
from engine.metrics import count_flops, mfu
from engine.tokens.about import CHECKSUM_KEY, same_data, start_cache
from engine.tokens.arrays import VideoTokens, store_tokens
from engine.tokens.cache import (
    CachedSubset,
    TokenCache,
    cache_name,
    count_views,
    encoder_entries,
    encoder_hash,
    open_cache,
    video_path,
)
from engine.tokens.dataset import TokenDataset, check_encoder, start_at_tokens
from engine.tokens.encode import RememberingReader
from models import create_model, get_arch, list_archs
from models.names import HEADS
from scripts import cache_tokens
from video_transforms import PLAIN, CenterCrop

TINY = [f"rgb_tiny3D16f_{head}".rstrip("_") for head in HEADS]
TINY += ["rgb_tiny3D16f_FRAB_bert10", "rgb_tiny3D16f_FRMB_lstm", "flow_tiny3D16f_bert10"]
SLOWFAST = [
    "rgb_slowfast64f_50",
    "rgb_slowfast64f_50_bert10_FRMB_early",
    "rgb_slowfast64f_50_bert10_FRAB_late",
]


@pytest.fixture(scope="module")
def split(tiny):
    return create_dataset(tiny.name, 1, "rgb", tiny.settings, tiny.frames)


@pytest.fixture(scope="module")
def cached(tiny, tmp_path_factory):
    """A cache of a random network, three views a training video; read-only."""
    folder = tmp_path_factory.mktemp("cache")
    flags = ["--arch", "rgb_tiny3D16f", "--weights", "none", "--views", "3", "--workers", "0"]
    assert cache_tokens.main([*tiny.flags, *flags, "--cache", str(folder)]) == 0
    return folder


def model_of(arch: str) -> nn.Module:
    """A network whose every part matters: norms that begin at zero are set to one."""
    torch.manual_seed(0)
    model = create_model(arch, 3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d) and not module.weight.any():
            nn.init.ones_(module.weight)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("arch", [*TINY, *SLOWFAST])
def test_logits_from_the_file_are_the_networks(arch, tmp_path):
    model = model_of(arch)
    clips = torch.randn(1 if arch in SLOWFAST else 3, *model.spec.clip_shape)
    expected = model(clips)
    torch.testing.assert_close(model.classify_tokens(model.forward_tokens(clips)), expected)
    store_tokens(tmp_path / "0.npy", model.encode(clips).numpy())
    stored = np.load(tmp_path / "0.npy")
    assert stored.dtype == np.float16 and len(stored) == len(clips)
    logits = model.classify(torch.from_numpy(stored).float())
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    assert not torch.allclose(expected[0], torch.zeros(3), atol=1e-3)


def test_every_architecture_says_what_it_freezes():
    for arch in list_archs():
        with torch.device("meta"):
            model = create_model(arch, 3)
        inside = encoder_entries(model).keys()
        outside = model.state_dict().keys() - inside
        assert {key for key in outside if key.startswith("features.")} == set()
        heads = ("bert", "lstm", "linear", "NLB", "fc_action", "model.head")
        assert all(key.startswith(heads) for key in outside), arch


def test_one_name_for_all_heads_on_a_backbone():
    names = {arch: cache_name(get_arch(arch)) for arch in [*TINY, *SLOWFAST]}
    assert {names[arch] for arch in TINY[:5]} == {"rgb_tiny3D16f", "rgb_tiny3D16f_FRMB"}
    assert names["rgb_tiny3D16f_concatenation"] == "rgb_tiny3D16f_FRMB"  # as the table has it
    assert names["rgb_tiny3D16f_NLB_concatenation"].endswith("_maps")
    assert len({names[arch] for arch in SLOWFAST}) == 3


def test_the_hash_is_the_encoders():
    plain, bert = model_of("rgb_tiny3D16f"), model_of("rgb_tiny3D16f_bert10")
    assert encoder_hash(plain) == encoder_hash(bert)
    first = encoder_hash(bert)
    with torch.no_grad():
        bert.fc_action.weight.add_(1)
        bert.features[0](torch.randn(1, 3, 16, 56, 56))
        assert encoder_hash(bert) == first
        for value in encoder_entries(bert).values():
            value.flatten()[-1] += 1
            changed = encoder_hash(bert)
            value.flatten()[-1] -= 1
            assert value.dtype == torch.int64 or changed != first  # the norms' counters


def test_training_views_are_those_of_the_first_epochs(cached, split):
    model, cache = model_of("rgb_tiny3D16f"), open_cache(cached)
    reader = build.frame_reader(model.spec, split, DataConfig("toy"))
    normalize = build.normalization(model.spec)
    clips = {
        "train": ClipDataset(
            *(split.train, reader, 16, build.training_transform(model.spec, PLAIN), True)
        ),
        "central": ClipDataset(split.val, reader, 16, CenterCrop(56), False),
    }
    for part, epochs in (("train", 3), ("central", 1)):
        cached_part = getattr(cache, part)
        assert [len(tokens) for tokens in cached_part.tokens] == [epochs] * len(clips[part])
        for epoch in range(epochs):
            clips[part].set_epoch(epoch)
            for video in range(len(clips[part])):
                clip, label = clips[part][video]
                with torch.inference_mode():
                    tokens = model.encode(normalize(clip))[0]
                theirs = torch.from_numpy(np.array(cached_part.tokens[video][epoch])).float()
                torch.testing.assert_close(theirs, tokens, rtol=2e-3, atol=2e-3)
                assert cached_part.labels[video] == label


def test_test_views_are_counted_as_the_test_does(cached, split):
    cache = open_cache(cached)
    assert [len(tokens) for tokens in cache.val.tokens] == [20, 10, 10] * 3  # 36, 17, 2 frames
    assert [r.folder for r in cache.val.records] == [r.folder for r in split.val]
    about = cache.metadata | {"views": cache.metadata["views"] | {"clips": "single", "crops": 1}}
    assert [count_views(about, "val", r) for r in split.val[:2]] == [(1, 0), (1, 0)]
    assert count_views(cache.metadata, "val", split.val[0]) == (20, 1)


def test_images_of_a_video_are_read_once(tiny, split):
    reader = build.frame_reader(get_arch("rgb_tiny3D16f"), split, DataConfig("toy"))
    remembering, read = RememberingReader(reader), []
    real = reader.read_unique
    reader.read_unique = lambda record, numbers: read.extend(numbers) or real(record, numbers)
    for numbers in ([3, 1, 2, 1], [2, 3], [5, 1]):
        ours = remembering.read(split.train[0], np.array(numbers))
        assert np.array_equal(ours, real(split.train[0], np.array(numbers)))
    assert sorted(read) == [1, 2, 3, 5]
    remembering.read(split.train[1], np.array([1]))
    assert read[-1] == 1 and len(read) == 5


def part_of(views: int, videos: int = 4) -> CachedSubset:
    tokens = [np.arange(views, dtype=np.float16)[:, None] + 100 * v for v in range(videos)]
    return CachedSubset([None] * videos, tokens, np.arange(videos))


def test_an_epochs_view_follows_from_seed_epoch_and_video():
    def views(seed: int, epochs: range) -> list[list[float]]:
        dataset, seen = TokenDataset(part_of(5), training=True, seed=seed), []
        for epoch in epochs:
            dataset.set_epoch(epoch)
            seen.append([float(dataset[v][0].item()) - 100 * v for v in range(4)])
        return seen

    seen = views(0, range(10))
    assert views(0, range(3, 10)) == seen[3:] and views(1, range(10)) != seen
    for video in range(4):
        of_video = [row[video] for row in seen]
        assert sorted(of_video[:5]) == sorted(of_video[5:]) == [0, 1, 2, 3, 4]
    assert seen[:5] != seen[5:]  # another order in the second turn
    assert len({tuple(row[video] for row in seen) for video in range(4)}) > 1


def test_padding_and_validation():
    dataset = TokenDataset(part_of(5), training=False)
    tokens, label = dataset[Padding(2)]
    assert tokens.shape == (1, 1) and tokens.item() == 200 and label == IGNORED
    assert dataset[2][1] == 2 and len(dataset) == 4


def test_what_lies_beyond_float16_is_refused(tmp_path):
    for value in (1e5, np.nan):
        with pytest.raises(DataError, match="float16"):
            store_tokens(tmp_path / "0.npy", np.full((1, 2), value, np.float32))
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="bfloat16"):
        store_tokens(tmp_path / "0.npy", np.full((1, 2), np.nan, np.float32), "bfloat16")


def test_bfloat16_holds_it(tmp_path):
    tokens = np.random.default_rng(0).normal(0, 1e5, (3, 8)).astype(np.float32)
    store_tokens(path := tmp_path / "0.npy", tokens, "bfloat16")
    found = VideoTokens([path], [slice(1, 3)], need_checksums=True)[0]
    assert found.dtype == np.float32
    assert np.array_equal(found, torch.from_numpy(tokens[1:]).bfloat16().float().numpy())


def test_files_of_another_number_type_are_refused(cached, tmp_path):
    folder = copy_of(cached, tmp_path / "c")
    path = video_path(folder, "val", 4)
    store_tokens(path, np.load(path).astype(np.float32), "bfloat16")
    with pytest.raises(DataError, match="00004.npy holds .* in uint16, not .* in float16"):
        open_cache(folder)


def copy_of(cached, folder):
    """The same cache, its files one's own."""
    for path in cached.rglob("*.*"):
        (folder / path.relative_to(cached)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(cached)).write_bytes(path.read_bytes())
    return folder


def test_files_that_are_not_whole_are_refused(cached, tmp_path):
    folder = copy_of(cached, tmp_path / "c")
    path = video_path(folder, "val", 4)
    whole = path.read_bytes()
    open_cache(folder)
    for content in (whole[:-1], whole[:40], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match="00004.npy is truncated"):
            open_cache(folder)
    open_cache(folder, ("train",))
    np.save(path, np.load(video_path(cached, "val", 4))[:-1])
    with pytest.raises(DataError, match="holds 10 views in float16, not 11"):
        open_cache(folder)
    path.unlink()
    with pytest.raises(DataError, match="1 of 9 videos of 'val' are missing"):
        open_cache(folder)
    np.save(path, np.zeros((11, 8, 64), np.float16))
    with pytest.raises(DataError, match="different shapes"):
        open_cache(folder)


def test_what_is_no_cache_is_refused(cached, tmp_path):
    with pytest.raises(DataError, match="no token cache"):
        open_cache(tmp_path)
    about = json.loads((cached / "about.json").read_text())
    for content, message in (
        ("{", "cannot read"),
        ("[]", "cannot read"),
        (json.dumps(about | {"format": 2}), "of format 2"),
        (json.dumps(about | {"records": {"train": [["a", "b"]]}}), "cannot read"),
        (json.dumps({"format": 1}), "cannot read"),
    ):
        (tmp_path / "about.json").write_text(content)
        with pytest.raises(DataError, match=message):
            open_cache(tmp_path)


def test_a_folder_keeps_one_kind(cached, tmp_path):
    about = json.loads((cached / "about.json").read_text())
    start_cache(tmp_path, about)
    weights = {"path": "elsewhere", "sha256": about["weights"]["sha256"]}
    start_cache(tmp_path, about | {"arch": "rgb_tiny3D16f_bert10", "weights": weights})
    for key, value in (
        ("views", about["views"] | {"train": 4}),
        ("weights", weights | {"sha256": "0"}),
        ("records", {"train": [], "val": []}),
        ("amp", "bf16"),
    ):
        with pytest.raises(DataError, match=f"different in {key}"):
            start_cache(tmp_path, about | {key: value})
    assert json.loads((tmp_path / "about.json").read_text()) == about


def test_a_cache_from_before_number_types_was_float32(cached, tmp_path):
    about = json.loads((cached / "about.json").read_text())
    early = {key: value for key, value in about.items() if key not in ("amp", CHECKSUM_KEY)}
    (tmp_path / "about.json").write_text(json.dumps(early))
    start_cache(tmp_path, about)
    with pytest.raises(DataError, match='different in amp: amp "off"'):
        start_cache(tmp_path, about | {"amp": "bf16"})


def test_a_cache_from_before_frame_rates_goes_on(cached, tmp_path):
    about = json.loads((cached / "about.json").read_text())
    (tmp_path / "about.json").write_text(json.dumps(about))
    start_cache(tmp_path, about | {"data": about["data"] | {"fps": 30.0}})
    with pytest.raises(DataError, match="different in data"):
        start_cache(tmp_path, about | {"data": about["data"] | {"hash": "0"}})


def test_fingerprints_are_compared_in_what_both_tell():
    assert same_data({"a": 1, "b": 2}, {"a": 1, "c": 3})
    assert not same_data({"a": 1, "b": 2}, {"a": 1, "b": 3})


def test_other_weights_are_refused_when_loaded_too(cached):
    cache: TokenCache = open_cache(cached)
    model, other = model_of("rgb_tiny3D16f_bert10"), model_of("rgb_tiny3D16f_bert10")
    nn.init.ones_(other.features[0].weight)
    check_encoder(model, cache)
    with pytest.raises(CheckpointError, match="not those that .* was made with"):
        check_encoder(other, cache)
    start_at_tokens(model, False, cache)
    model.load_state_dict(model.state_dict())
    with pytest.raises(CheckpointError, match="new weights of --seed 0"):
        model.load_state_dict(other.state_dict())
    assert not any(parameter.requires_grad for parameter in model.features.parameters())
    assert all(parameter.requires_grad for parameter in model.bert.parameters())


def test_counted_operations():
    model = model_of("rgb_tiny3D16f")
    model.from_encoded = True
    # One product of (1, 128) and (128, 3), and two of that size in the backward pass; what goes
    # into the mean of constants needs none.
    tokens = torch.randn(1, 8, 128)
    assert count_flops(model, tokens, backward=True) in (2 * 2 * 128 * 3, 3 * 2 * 128 * 3)
    assert all(parameter.grad is None for parameter in model.parameters())
    lstm = model_of("rgb_tiny3D16f_lstm")
    lstm.from_encoded = True
    assert count_flops(lstm, tokens, backward=True) > 2 * 2 * 8 * (128 + 64) * 4 * 64
    assert count_flops(lstm, tokens) < count_flops(lstm, tokens, backward=True) / 2
    assert mfu(flops=2e9, clips_per_second=25, rate=1e11) == 50
