"""Token caches that are damaged or hostile: a video is refused and named, a cache in words."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import two_stream_bert2
from datasets import DataError
from engine.files import CheckpointError
from engine.tokens.about import CHECKSUM_KEY, metadata_checksum
from engine.tokens.arrays import CHECKSUM, VideoTokens, map_tokens, store_tokens
from engine.tokens.cache import open_cache, video_path
from engine.tokens.dataset import TokenDataset
from scripts import cache_tokens
from scripts.eval import spatial_demo3D
from tests.conftest import ROOT
from tests.mutations import mutated

ARCH = "rgb_tiny3D16f"
EARLIER = ROOT / "tests" / "earlier_files" / "tokens"
GOOD = json.loads((EARLIER / "about.json").read_text())
hostile = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def cached(tiny, tmp_path_factory) -> Path:
    """Tokens of a random network; read-only."""
    folder = tmp_path_factory.mktemp("cache")
    flags = ["--arch", ARCH, "--weights", "none", "--views", "2", "--workers", "0", "--no-flip"]
    assert cache_tokens.main([*tiny.flags, *flags, "--cache", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tiny, cached, tmp_path_factory) -> Path:
    """A head trained on them for a step; read-only."""
    output = tmp_path_factory.mktemp("runs")
    assert two_stream_bert2.main(train_flags(tiny, cached, output)) == 0
    return output


@pytest.fixture
def cache(cached, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(cached, tmp_path / "cache"))


def train_flags(tiny, folder: Path, output: Path) -> list[str]:
    flags = ["--arch", ARCH, "--cache", folder, "--output", output, "--epochs", 1, "-b", 4]
    return [*tiny.flags, *map(str, [*flags, "--iter-size", 1, "--workers", 0])]


def flip_bit(path: Path) -> None:
    """Changes one bit of the array's last number but one: it stays finite."""
    content = bytearray(path.read_bytes())
    content[-CHECKSUM - 4] ^= 1
    path.write_bytes(content)


def put_nan(path: Path) -> None:
    """NaN with a right checksum, as a cache of other code could hold it."""
    tokens = np.load(path)
    store_tokens(path, np.zeros_like(tokens))
    content = path.read_bytes()[:-CHECKSUM]
    tokens[0, 0] = np.nan
    path.write_bytes(content[: -tokens.nbytes] + tokens.tobytes())
    about = json.loads((path.parents[1] / "about.json").read_text())
    del about[CHECKSUM_KEY]  # then files need none
    (path.parents[1] / "about.json").write_text(json.dumps(about))


DAMAGES = {"is damaged: it is not what": flip_bit, "holds NaN or infinity": put_nan}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_video_is_not_scored_and_named(tiny, cache, runs, tmp_path, capsys, message):
    path = video_path(cache, "val", 4)
    DAMAGES[message](path)
    scores = tmp_path / "scores.npz"
    flags = ["--arch", ARCH, "--runs", runs, "--results", tmp_path / "results", "--cache", cache]
    flags = [*tiny.flags, *map(str, [*flags, "--scores", scores, "--workers", 0, "--no-ten-crop"])]
    code = spatial_demo3D.main(flags)
    assert code == 1
    assert f"not scored, counts as wrong: {path} {message}" in capsys.readouterr().out
    with np.load(scores) as data:
        assert np.isnan(data["score"]).all(axis=1).tolist() == [v == 4 for v in range(9)]
        folder = str(data["video"][4])
    (summary,) = (tmp_path / "results").glob("*.json")
    summary = json.loads(summary.read_text())
    assert summary["unscored"].keys() == {folder} and summary["videos"] == 9
    assert message in summary["unscored"][folder]


@pytest.mark.parametrize("message", DAMAGES)
@pytest.mark.parametrize("subset", ["train", "val"])
def test_training_on_a_damaged_video_ends_in_words(tiny, cache, tmp_path, message, subset):
    path = video_path(cache, subset, 4)
    DAMAGES[message](path)
    with pytest.raises(DataError, match=f"00004.npy {message}.*cache_tokens.py again"):
        two_stream_bert2.main(train_flags(tiny, cache, tmp_path / "runs"))


@pytest.mark.parametrize("numbers", ["float16", "bfloat16"])
def test_every_flipped_bit_is_noticed(tmp_path, numbers):
    tokens = np.random.default_rng(0).integers(-9, 9, (1, 2, 4)).astype(np.float32)
    store_tokens(path := tmp_path / "0.npy", tokens, numbers)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        with pytest.raises(DataError, match="0.npy"):
            VideoTokens([path], [slice(1)], need_checksums=True)[0]
    path.write_bytes(whole)
    assert np.array_equal(VideoTokens([path], [slice(1)], True)[0], tokens)
    path.write_bytes(whole[:-CHECKSUM])
    assert np.array_equal(VideoTokens([path], [slice(1)])[0], tokens)  # of earlier code
    with pytest.raises(DataError, match="has lost its checksum"):
        VideoTokens([path], [slice(1)], True)[0]


def saved(array, save=np.save) -> bytes:
    file = io.BytesIO()
    save(file, array)
    return file.getvalue()


def claiming(shape: str) -> bytes:
    """An array's file whose header says another shape."""
    true, claimed = (f"{text}, }}".ljust(40).encode() for text in ("(6, 8, 1)", shape))
    return saved(np.zeros((6, 8, 1), np.float16)).replace(true, claimed)


FILES = {
    "npz": saved(np.zeros((6, 8, 128), np.float16), np.savez),
    "objects": saved(np.array([[{}, None]], object)),
    "records": saved(np.zeros((6, 2), [("x", "f2")])),
    "float32": saved(np.zeros((6, 8, 128), np.float32)),
    "big-endian": saved(np.zeros((6, 8, 128), ">f2")),
    "no views": saved(np.zeros((0, 8, 128), np.float16)),
    "one dimension": saved(np.zeros(6, np.float16)),
    "scalar": saved(np.float16(1)),
    "truncated": saved(np.zeros((6, 8, 128), np.float16))[:-1],
    "longer": saved(np.zeros((6, 8, 128), np.float16)) + b"x",
    "empty": b"",
    "huge": claiming("(6, 1000000000000, 1000000000000)"),
    "large": claiming("(6, 999999999999)"),
    "negative": claiming("(6, -8, 1)"),
    "text": b"6 8 128\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_videos_file_is_refused_when_opened(cache, kind):
    video_path(cache, "val", 4).write_bytes(FILES[kind])
    with pytest.raises(DataError, match=r"00004.npy .*cache_tokens.py again"):
        open_cache(cache)


def test_a_file_of_another_shape_is_refused_when_opened(cache):
    for shape, message in (((6, 8, 64), "different shapes"), ((3, 8, 128), "holds 3 views")):
        np.save(video_path(cache, "val", 4), np.zeros(shape, np.float16))
        with pytest.raises(DataError, match=message):
            open_cache(cache)


def test_what_is_no_file_is_not_opened(cache):
    for path in (video_path(cache, "val", 4), cache / "about.json"):
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(DataError, match=f"{path.name} is a pipe, not a file"):
            open_cache(cache)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(DataError, match=f"{path.name} is a device, not a file"):
            open_cache(cache)


def test_a_changed_about_file_with_a_checksum_is_refused(cache):
    about = json.loads((cache / "about.json").read_text())
    assert about[CHECKSUM_KEY] == metadata_checksum(about)
    for key, value in (("seed", 1), ("crops", 1)):
        edited = about | {"views": about["views"] | {key: value}}
        (cache / "about.json").write_text(json.dumps(edited))
        with pytest.raises(DataError, match="damaged or was edited"):
            open_cache(cache)


def test_a_cache_of_earlier_code_has_no_checksums_and_loads(tmp_path):
    assert CHECKSUM_KEY not in GOOD
    cache = open_cache(EARLIER)
    for part in (cache.train, cache.val, cache.central):
        for path, tokens in zip(part.tokens.paths, part.tokens, strict=True):
            assert map_tokens(path).nbytes + map_tokens(path).offset == path.stat().st_size
            assert np.array_equal(tokens, np.load(path)[: len(tokens)])
    (tokens, label) = TokenDataset(cache.val, training=False)[0]
    assert tokens.shape == (1, *cache.view_shape) and label == 0


def refused_in_words(read, folder: Path, name: str = "about.json") -> bool:
    """Whether it was refused."""
    try:
        read(folder)
    except (DataError, CheckpointError) as error:
        assert name in str(error) or str(folder) in str(error)
        return True
    return False


@pytest.mark.parametrize("need_checksums", [True, False])
def test_any_damaged_array_is_read_or_refused(tmp_path, need_checksums):
    tokens = np.random.default_rng(0).normal(size=(2, 2, 4)).astype(np.float16)
    store_tokens(path := tmp_path / "0.npy", tokens)
    whole = path.read_bytes()

    @hostile
    @given(content=mutated(whole if need_checksums else whole[:-CHECKSUM]))
    def attack(content: bytes) -> None:
        path.write_bytes(content)
        videos = VideoTokens([path], [slice(2)], need_checksums)
        read = []
        refused = refused_in_words(lambda _: read.append(videos[0]), tmp_path, "0.npy")
        if need_checksums and not refused:
            assert content == whole
        assert refused or np.isfinite(read[0]).all()

    attack()
