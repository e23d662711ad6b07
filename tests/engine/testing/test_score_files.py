"""Score files: what is read, what is refused and why, and what belongs together."""

import json
import pickle

import numpy as np
import pytest

from datasets import DataError
from engine.analysis.fusion import (
    check_held_out,
    fuse_files,
    fuse_runs,
    search_and_fuse,
    search_weights,
)
from engine.metrics import fuse
from engine.testing.score_files import match_files, read_scores, write_scores
from engine.testing.score_runs import group_runs

VIDEOS = ["a/0", "a/1", "b/0", "c/0"]
LABELS = [0, 0, 1, 2]
GOOD = {
    "video": np.array(VIDEOS),
    "label": np.array(LABELS),
    "score": np.eye(3, dtype=np.float32)[LABELS],
    "classes": np.array(["left", "middle", "right"]),
}


def write(path, about=None, **changes):
    """A good score file with some arrays changed, or left out (None); returns it read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
    np.savez(path, **arrays)
    if about is not None:
        path.with_suffix(".json").write_text(json.dumps(about))
    return path


def about(arch="net", split=1, **changes):
    return {"dataset": "toy", "split": split, "arch": arch, "clips": "multi", "crops": 10} | changes


def test_a_good_file(tmp_path):
    clips = {
        "clip_score": np.full((5, 3), 1, np.float16),
        "clip_video": np.array([0, 1, 2, 2, 3], np.int32),
    }
    file = read_scores(write(tmp_path / "x.npz", about(), **clips))
    assert file.videos == tuple(VIDEOS) and file.classes == ("left", "middle", "right")
    assert file.scores.dtype == file.clip_scores.dtype == np.float32
    assert file.clip_videos.tolist() == [0, 1, 2, 2, 3] and file.unscored == 0
    assert file.metadata == about(time_order="normal")  # older files do not say
    assert read_scores(write(tmp_path / "old.npz")).clip_scores is None


def test_what_is_written_is_read(tmp_path):
    path, clips = tmp_path / "new" / "x.npz", [np.ones((n, 3)) for n in (2, 1, 3, 1)]
    write_scores(path, VIDEOS, np.array(LABELS), GOOD["score"], list(GOOD["classes"]), clips)
    file = read_scores(path)
    assert file.videos == tuple(VIDEOS) and file.labels.tolist() == LABELS
    assert np.array_equal(file.scores, GOOD["score"]) and file.classes == tuple(GOOD["classes"])
    assert file.clip_videos.tolist() == [0, 0, 1, 2, 2, 2, 3] and file.clip_scores.shape == (7, 3)
    write_scores(path, VIDEOS, np.array(LABELS), GOOD["score"], list(GOOD["classes"]))
    assert read_scores(path).clip_scores is None
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]


def test_a_fusion_holds_its_streams(tmp_path):
    streams = {"rgb": GOOD["score"] + 1, "flow": np.full((4, 3), np.nan)}
    names = list(GOOD["classes"])
    path = tmp_path / "x.npz"
    write_scores(path, VIDEOS, np.array(LABELS), GOOD["score"], names, streams=streams)
    found = read_scores(path).streams
    assert list(found) == ["rgb", "flow"] and np.isnan(found["flow"]).all()
    assert np.array_equal(found["rgb"], GOOD["score"] + 1)


def test_a_row_that_is_not_finite_is_not_scored(tmp_path):
    scores = GOOD["score"].copy()
    scores[0, 1], scores[2] = np.inf, np.nan
    file = read_scores(write(tmp_path / "x.npz", score=scores))
    assert np.isnan(file.scores).all(axis=1).tolist() == [True, False, True, False]
    assert file.unscored == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": None}, "no 'score' in it; it has video, label, classes"),
        ({"video": np.array(VIDEOS, object)}, "pickled objects, which are never loaded"),
        ({"score": GOOD["score"].astype(object)}, "pickled objects, which are never loaded"),
        ({"video": np.arange(4)}, "'video' should be text"),
        ({"label": np.array(LABELS, float)}, "'label' should be whole numbers"),
        ({"label": np.array([LABELS])}, r"1 dimension.*int64 \(1, 4\)"),
        ({"score": np.ones((4, 3), int)}, "'score' should be floating-point numbers"),
        ({"score": np.ones((3, 3))}, r"4 videos and 3 classes, but .* scores \(3, 3\)"),
        ({"score": np.ones((4, 4))}, r"4 videos and 3 classes, but .* scores \(4, 4\)"),
        ({"label": np.array([0, 1])}, r"labels \(2,\)"),
        ({"label": np.array([0, 0, 1, 3])}, "a label 3, but 3 classes"),
        ({"label": np.array([0, 0, 1, -1])}, "a label -1, but 3 classes"),
        ({"video": np.array(["a/0", "b/0", "a/0", "c/0"])}, "the video 'a/0' is there twice"),
        ({"video": np.array([], str)}, "no videos"),
        ({"clip_score": np.ones((4, 3))}, "no 'clip_video' in it"),
        ({"clip_score": np.ones((4, 3)), "clip_video": np.array([0, 1, 2])}, "do not fit"),
        ({"clip_score": np.ones((3, 3)), "clip_video": np.array([0, 1, 2])}, "do not fit"),
        ({"clip_score": np.ones((4, 3)), "clip_video": np.array([0, 1, 2, 4])}, "do not fit"),
        ({"stream": np.array(["a"])}, "no 'stream_score' in it"),
        ({"stream": np.array(["a", "b"]), "stream_score": np.ones((1, 4, 3))}, "do not fit"),
        ({"stream": np.array(["a", "a"]), "stream_score": np.ones((2, 4, 3))}, "of 1 streams"),
        ({"stream": np.array(["a"]), "stream_score": np.ones((1, 4, 2))}, "do not fit"),
        ({"stream": np.array(["a"]), "stream_score": np.ones((4, 3))}, "in 3 dimension"),
    ],
)
def test_wrong_contents_are_refused(tmp_path, changes, message):
    path = write(tmp_path / "x.npz", **changes)
    with pytest.raises(DataError, match=message) as error:
        read_scores(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_score_files_are_refused(tmp_path):
    whole = write(tmp_path / "whole.npz").read_bytes()
    harmful = tmp_path / "harmful"
    flipped = bytearray(whole)
    flipped[whole.index(b"NUMPY") + 150] ^= 0xFF  # inside an array's bytes: the checksum tells
    contents = {
        "empty": b"",
        "text": b"video,label\n",
        "truncated": whole[: len(whole) // 2],
        "cut at the end": whole[:-10],
        "flipped": bytes(flipped),
        "pickle": pickle.dumps({"os": harmful}),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.npz: not a readable score file: ."):
            read_scores(path)
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, GOOD["score"])
    with pytest.raises(DataError, match="it holds a single array"):
        read_scores(tmp_path / "single.npz")
    with pytest.raises(DataError, match="no score file .*no such file"):
        read_scores(tmp_path / "none.npz")


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **GOOD | {"score": np.zeros((10_000_000, 3), np.float32)})
    assert path.stat().st_size < 1_000_000
    with pytest.raises(DataError, match="bomb.npz: .*: a file .* would unpack to 120"):
        read_scores(path)
    np.savez_compressed(path, **GOOD)
    assert read_scores(path).unscored == 0


def test_the_json_beside(tmp_path):
    path = write(tmp_path / "x.npz", {"streams": {"r": {}, "f": {}}, **about(arch=None)})
    assert read_scores(path).metadata["arch"] == "r+f"
    for foreign in ("[1]", '{"split": 1}', '{"split": {}, "arch": 3}'):
        path.with_suffix(".json").write_text(foreign)
        assert read_scores(path).metadata == {}
    path.with_suffix(".json").write_text("{")
    with pytest.raises(DataError, match="cannot read .*x.json: Input data was truncated"):
        read_scores(path)


def test_streams_are_matched_by_name(tmp_path):
    order = [2, 0, 3, 1]
    shuffled = {key: GOOD[key][order] for key in ("video", "label", "score")}
    first = read_scores(write(tmp_path / "a.npz"))
    second = read_scores(write(tmp_path / "b.npz", **shuffled))
    assert [second.videos[place] for place in match_files(first, second)] == VIDEOS
    fused = fuse_files([first, second], [1, 1.5])
    np.testing.assert_allclose(fused.scores, 2.5 * GOOD["score"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.array(["a/0", "a/1", "b/0", "d/0"])}, "1 videos are in .*a.npz .*: c/0"),
        ({"label": np.array([0, 0, 1, 1])}, "'c/0' has label 2 in .*a.npz and 1 in .*b.npz"),
        ({"classes": np.array(["left", "right", "middle"])}, "class 1 is 'middle' in .*'right'"),
        (
            {"classes": np.array(["l", "m", "r", "x"]), "score": np.ones((4, 4))},
            "a.npz has 3 classes, .*b.npz 4",
        ),
    ],
)
def test_streams_that_do_not_match_are_refused(tmp_path, changes, message):
    first = read_scores(write(tmp_path / "a.npz"))
    second = read_scores(write(tmp_path / "b.npz", **changes))
    with pytest.raises(DataError, match=message):
        match_files(first, second)


def test_a_list_that_is_longer_is_refused(tmp_path):
    longer = read_scores(write(tmp_path / "a.npz"))
    part = {key: GOOD[key][:3] for key in ("video", "label", "score")}
    shorter = read_scores(write(tmp_path / "b.npz", **part))
    with pytest.raises(DataError, match="1 videos are in .*a.npz and not in .*b.npz: c/0"):
        match_files(shorter, longer)


def test_splits_are_grouped(tmp_path):
    files = [
        write(tmp_path / "x.npz", about(split=2)),
        write(tmp_path / "flow_split10.npz"),
        write(tmp_path / "y.npz", about(split=1)),
        write(tmp_path / "flow_split9.npz"),
        write(tmp_path / "z.npz", about(split=1, crops=1)),
        write(tmp_path / "alone.npz"),
        write(tmp_path / "r.npz", about(split=2, time_order="reversed")),
    ]
    runs = group_runs([read_scores(path) for path in files])
    assert [(run.name, list(run.splits)) for run in runs] == [
        ("toy net, multi clip, 10 crops", [1, 2]),
        ("flow", [9, 10]),
        ("toy net, multi clip, 1 crop", [1]),
        ("alone", [1]),
        ("toy net, multi clip, 10 crops, reversed", [2]),
    ]


def test_files_of_one_split_are_told_apart(tmp_path):
    paths = [tmp_path / folder / f"{k}.npz" for folder in ("s0", "s1") for k in (1, 2)]
    files = [read_scores(write(path, about(split=int(path.stem)))) for path in paths]
    runs = group_runs(files)
    assert [list(run.splits) for run in runs] == [[1, 2], [1, 2]]
    assert runs[0].name.endswith("[s0]") and runs[1].name.endswith("[s1]")
    paths = [
        tmp_path / stream / "scores" / f"bert2_split{k}_seed0_normal.npz"
        for stream in ("rgb", "flow")
        for k in (1, 2)
    ]
    runs = group_runs([read_scores(write(path)) for path in paths])  # of two ablations
    assert [(run.name.split()[-1], [*run.splits]) for run in runs] == [
        ("[rgb]", [1, 2]),
        ("[flow]", [1, 2]),
    ]
    twin = read_scores(write(tmp_path / "s0" / "again.npz", about(split=1)))
    assert len({run.name for run in group_runs([files[0], twin])}) == 2
    with pytest.raises(DataError, match="is given twice"):
        group_runs([files[0], twin, files[0]])
    other = read_scores(
        write(tmp_path / "o.npz", about(split=3), classes=np.array(["a", "b", "c"]))
    )
    with pytest.raises(DataError, match="class 0 is 'left'"):
        group_runs([files[0], other])


def noisy(rng, labels, strength):
    return (rng.normal(size=(len(labels), 3)) + strength * np.eye(3)[labels]).astype(np.float32)


def stream(path, names, labels, scores, **kwargs):
    arrays = {"video": np.array(names), "label": labels, "score": scores}
    return read_scores(write(path, **arrays, **kwargs))


def test_the_search_finds_the_stream_that_knows(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    names = [f"v{i}" for i in range(200)]
    good = stream(tmp_path / "good.npz", names, labels, noisy(rng, labels, 2))
    bad = stream(tmp_path / "bad.npz", names, labels, noisy(rng, labels, 0))
    weights, top1 = search_weights([bad, good])
    assert sum(weights) == pytest.approx(1) and weights[1] > 0.6
    by_hand = [fuse([bad.scores, good.scores], [1 - w / 20, w / 20]) for w in range(21)]
    assert top1 == pytest.approx(max(100 * np.mean(s.argmax(1) == labels) for s in by_hand))
    assert len(search_weights([good, bad, good])[0]) == 3
    four = search_weights([good, good, good, good])[0]
    assert sum(four) == pytest.approx(1)


def test_of_equally_good_weights_equal_ones_are_taken(tmp_path):
    file = read_scores(write(tmp_path / "a.npz"))
    assert search_weights([file, file]) == ((0.5, 0.5), 100.0)


def test_held_out_videos_must_not_be_tested(tmp_path):
    test = read_scores(write(tmp_path / "test.npz", about()))
    for videos in (VIDEOS, ["x", "y", "c/0", "z"]):
        held = read_scores(write(tmp_path / "held.npz", about(), video=np.array(videos)))
        with pytest.raises(DataError, match="of 4 held-out videos of .*held.npz are test videos"):
            check_held_out(held, test)
    new = np.array(["h0", "h1", "h2", "h3"])
    check_held_out(read_scores(write(tmp_path / "held.npz", about(), video=new)), test)
    for wrong in (about(arch="other"), about(split=2)):
        held = read_scores(write(tmp_path / "held.npz", wrong, video=new))
        with pytest.raises(DataError, match="in the order of the score files"):
            check_held_out(held, test)


def test_each_split_has_its_own_weights(tmp_path):
    """A video held out on one split may be tested on another, whose weights do not see it."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    files, held_out = [], []
    for arch, knows in (("rgb", 1), ("flow", 2)):
        for split in (1, 2):
            strength = 4 if split == knows else 0
            for kind, part in (("test", split), ("held", 3 - split)):
                path = tmp_path / f"{kind}_{arch}_split{split}.npz"
                names = [f"part{part}/{i}" for i in range(60)]
                json_ = about(arch, split)
                read = stream(path, names, labels, noisy(rng, labels, strength), about=json_)
                (files if kind == "test" else held_out).append(read)
    runs = group_runs(files)
    fusion = search_and_fuse(runs, files, held_out)
    assert fusion.weights[1][0] > 0.5 > fusion.weights[2][0]
    assert fusion.held_out[1]["top1"] >= fusion.held_out[1]["top1_equal_weights"]
    expected = fuse([runs[0].splits[2].scores, runs[1].splits[2].scores], fusion.weights[2])
    assert np.array_equal(fusion.fused.splits[2].scores, expected)
    with pytest.raises(DataError, match="give the same splits of every stream"):
        fuse_runs(group_runs(files[:3]), [1, 1])
