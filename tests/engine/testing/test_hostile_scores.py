"""Score files that are damaged or hostile, and networks whose scores are not numbers."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from datasets import DataError
from engine.analysis.fusion import fuse_runs
from engine.analysis.summary import summarize_runs
from engine.metrics import confusion_matrix, predicted_classes
from engine.testing.score_files import ScoreFile, read_scores, write_scores
from engine.testing.score_runs import group_runs
from scripts import summarize
from tests.mutations import mutated

VIDEOS, CLASSES = ["a/0", "a/1", "b/0", "c/0"], ["left", "middle", "right"]
LABELS = np.array([0, 0, 1, 2])
SCORES = np.eye(3, dtype=np.float32)[LABELS] + np.float32(0.25)
ABOUT = {"dataset": "toy", "split": 1, "arch": "net", "clips": "multi", "crops": 10}
hostile = settings(max_examples=200, deadline=None, derandomize=True)


def write(path: Path, scores=SCORES, about: dict | None = None) -> Path:
    clips = [scores[[v]] for v in range(4)]
    write_scores(path, VIDEOS, LABELS, scores, CLASSES, clips)
    path.with_suffix(".json").write_text(json.dumps(ABOUT | (about or {})))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def whole(folder) -> bytes:
    return write(folder / "whole.npz").read_bytes()


def same(one: ScoreFile, other: ScoreFile) -> bool:
    arrays = ("labels", "scores", "clip_scores", "clip_videos")
    equal = all(np.array_equal(getattr(one, k), getattr(other, k)) for k in arrays)
    return equal and one.videos == other.videos and one.classes == other.classes


def test_no_flipped_bit_changes_a_score(folder, whole):
    """A bit of each byte; what is read all the same, is in no array: dates, permissions."""
    good, path = read_scores(folder / "whole.npz"), folder / "flipped.npz"
    read = 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        try:
            assert same(read_scores(path), good)
            read += 1
        except DataError as error:
            assert "flipped.npz: " in str(error)
    assert read < 0.25 * len(whole)


def test_numpys_own_look_at_the_checksum_would_not_be_enough(tmp_path):
    """A header that claims fewer numbers: NumPy stops before the end, where zipfile compares."""
    names = [f"v{number}" for number in range(4000)]
    path, labels = tmp_path / "x.npz", np.zeros(4000, int)
    write_scores(path, names, labels, np.zeros((4000, 3)), CLASSES)
    flipped = bytearray(path.read_bytes())
    flipped[flipped.index(b"(4000,)", flipped.index(b"label.npy")) + 1] ^= 0b100  # (0000,)
    path.write_bytes(flipped)
    with np.load(path) as data:
        assert data["label"].shape == (0,)
    with pytest.raises(DataError, match="damaged: its part 'label.npy' is not what its checksum"):
        read_scores(path)


ARRAYS = {
    "video": np.array(VIDEOS),
    "label": LABELS,
    "score": SCORES,
    "classes": np.array(CLASSES),
    "clip_score": SCORES,
    "clip_video": np.arange(4),
}
WRONG = [
    *[(key, np.array([None] * 4, object), "never loaded") for key in ARRAYS],
    *[(key, np.zeros(4, [("x", "f4")]), f"'{key}' should be") for key in ARRAYS],
    *[(key, np.array(1.5), f"'{key}' should be") for key in ARRAYS],
    *[(key, np.zeros((4, 3), complex), f"'{key}' should be") for key in ARRAYS],
    ("video", np.array([b"a", b"b", b"c", b"d"]), "should be text"),
    ("video", np.array(["a", "b", "c", "\x1b[2J"]), "control characters"),
    ("video", np.array(["a", "b", "c", "d\nfused: top-1 100 %"]), "control characters"),
    ("video", np.array([0x110000] * 4, "u4").view("U1"), "is no text"),
    ("classes", np.array([0x1000061] * 3, "u4").view("U1"), "is no text"),
    ("label", LABELS.astype("m8[s]"), "should be whole"),
    ("label", LABELS > 0, "should be whole"),
    ("label", np.array([0, 0, 1, 2**64 - 1], np.uint64), "a label 18446744073709551615"),
    ("score", SCORES[:, :0], "4 videos and 3 classes"),
    ("score", SCORES[..., None], "2 dimension"),
    ("classes", np.array([], str), "4 videos and 0 classes"),
    ("clip_score", SCORES[:3], "do not fit"),
    ("clip_video", np.array([0, 1, 2, -1]), "do not fit"),
]


@pytest.mark.parametrize(("key", "array", "message"), WRONG)
def test_arrays_of_other_kinds_are_refused(tmp_path, key, array, message):
    path = tmp_path / "x.npz"
    np.savez(path, **ARRAYS | {key: array})
    with pytest.raises(DataError, match=message) as error:
        read_scores(path)
    assert "x.npz: " in str(error.value)


def test_a_part_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    for name, content in (("label", b"text"), ("label.npy", b"text"), ("other", b"")):
        np.savez(path, **{key: array for key, array in ARRAYS.items() if key != "label"})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content)
        with pytest.raises(DataError, match=f"its part '{name[:5]}' is no array"):
            read_scores(path)


def test_an_array_larger_than_its_file_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **ARRAYS)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for claimed in ("(4, 99999999999999)", "(-4, 3)", "(4, 3, 1, 1, 1, 1)", "(9999999999, 3)"):
        header = parts["score.npy"].replace(
            b"(4, 3), }".ljust(40), f"{claimed}, }}".ljust(40).encode()
        )
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, header if name == "score.npy" else content)
        with pytest.raises(DataError, match="x.npz: "):
            read_scores(path)


NOT_NUMBERS = [[np.nan] * 3, [np.inf, 0, 0], [9, np.nan, 0], [-np.inf] * 3, [np.inf] * 3]


@pytest.mark.parametrize("row", NOT_NUMBERS)
def test_a_row_that_is_no_numbers_is_wrong_and_of_no_class(tmp_path, row):
    """Its label is class 0, which argmax says of NaN."""
    scores = SCORES.copy()
    scores[0] = row
    files = [
        read_scores(write(tmp_path / "a.npz", scores)),
        read_scores(write(tmp_path / "b.npz", about={"arch": "other"})),
    ]
    assert predicted_classes(files[0].scores).tolist() == [-1, 0, 1, 2]
    assert confusion_matrix(files[0].scores, LABELS).tolist() == np.diag([1, 1, 1]).tolist()
    runs = group_runs(files)
    fusion = fuse_runs(runs, [1, 3])
    fused = fusion.fused.splits[1]
    assert predicted_classes(fused.scores).tolist() == [-1, 0, 1, 2] and fused.unscored == 1
    first, second, both = summarize_runs(runs, fusion)["runs"]
    for run, correct in ((first, 75), (second, 100), (both, 75)):
        (split,) = run["splits"]
        assert split["unscored"] == (correct < 100)
        assert split["top1"]["value"] == split["top3"]["value"] == correct
        by_class = split["mean_class_accuracy"]["value"]
        assert by_class == pytest.approx(100 if correct == 100 else 250 / 3, abs=1e-3)
    assert first["splits"][0]["clip_top1"]["value"] == 75


def test_float64_beyond_float32_is_no_score_and_no_warning(tmp_path, recwarn):
    path = tmp_path / "x.npz"
    np.savez(path, **ARRAYS | {"score": SCORES.astype(float) * [[1e300], [1], [1], [1]]})
    assert read_scores(path).unscored == 1 and not recwarn.list


def test_summarize_tells_of_unscored_videos(tmp_path, capsys):
    scores = np.full_like(SCORES, np.nan)
    path = write(tmp_path / "x.npz", scores)
    out = tmp_path / "summary.json"
    assert summarize.main([str(path), "--json", str(out), "--plot", str(tmp_path / "p.png")]) == 0
    assert "4 videos not scored, count as wrong" in capsys.readouterr().out
    assert json.loads(out.read_text())["runs"][0]["splits"][0]["top1"]["value"] == 0


JSONS = {
    "NaN": b'{"split": NaN}',
    "nested": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long number": b'{"split": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"dataset": "\xff"}',
    "UTF-16": json.dumps(ABOUT).encode("utf-16"),
    "empty": b"",
}
for key, value in (("split", -1), ("split", 10**12), ("split", True), ("crops", "10")):
    JSONS[f"{key} {value}"] = json.dumps(ABOUT | {key: value}).encode()
for key, value in (("crops", 0), ("arch", ["x"]), ("dataset", None), ("time_order", 3)):
    JSONS[f"{key} {value}"] = json.dumps(ABOUT | {key: value}).encode()


@pytest.mark.parametrize("kind", JSONS)
def test_a_json_beside_that_says_nonsense_is_refused(tmp_path, kind):
    path, content = write(tmp_path / "x.npz"), JSONS[kind]
    path.with_suffix(".json").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(DataError, match="x.json: "):
        read_scores(path)


@pytest.mark.parametrize("missing", [*ABOUT])
def test_a_json_without_a_key_is_a_foreign_one(tmp_path, missing):
    path = write(tmp_path / "flow_split3.npz")
    about = {key: value for key, value in ABOUT.items() if key != missing}
    path.with_suffix(".json").write_text(json.dumps(about))
    file = read_scores(path)
    assert file.metadata == {}
    assert [(run.name, [*run.splits]) for run in group_runs([file])] == [("flow", [3])]


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_what_is_no_file_is_not_opened(tmp_path, suffix):
    path = write(tmp_path / "x.npz")
    other = path.with_suffix(suffix)
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(DataError, match=f"x{suffix} is a pipe, not a file"):
        read_scores(path)
    other.unlink()
    other.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"x{suffix} is a device, not a file"):
        read_scores(path)


def use(path: Path, other: ScoreFile) -> None:
    """All that scripts/summarize.py does with a file, but for the bootstrap's many draws."""
    try:
        runs = group_runs([read_scores(path), other])
        fused = fuse_runs(runs, [1, 1]) if len(runs) > 1 else None
    except DataError as error:
        assert str(path) in str(error) or str(path.with_suffix(".json")) in str(error)
        return
    for run in [*runs, *([fused.fused] if fused else [])]:
        for file in run.splits.values():
            assert 0 <= file.unscored <= len(file.videos)
            predicted_classes(file.scores)


@pytest.fixture(scope="module")
def other(folder) -> ScoreFile:
    return read_scores(write(folder / "other.npz", about={"arch": "other"}))


@hostile
@given(content=mutated(json.dumps(ABOUT).encode()))
def test_any_damaged_json_beside_is_read_or_refused(folder, other, content):
    path = folder / "whole_json.npz"
    if not path.exists():
        write(path)
    path.with_suffix(".json").write_bytes(content)
    use(path, other)


def test_any_damaged_score_file_is_read_or_refused(folder, whole, other):
    path = write(folder / "damaged.npz")
    good = read_scores(path)

    @hostile
    @given(content=mutated(whole))
    def attack(content: bytes) -> None:
        path.write_bytes(content)
        use(path, other)
        try:
            read = read_scores(path)
        except DataError:
            return
        assert read.clip_scores is None or same(read, good)  # parts of a zip may be lost

    attack()


@pytest.mark.parametrize("part", ["score", "video", "label", "clip_video"])
def test_any_array_with_a_right_checksum_is_read_or_refused(folder, other, part):
    path, file = write(folder / "valid.npz"), io.BytesIO()
    np.save(file, ARRAYS[part])
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    @settings(hostile, max_examples=50)
    @given(content=mutated(file.getvalue()))
    def attack(content: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, own in parts.items():
                archive.writestr(name, content if name == f"{part}.npy" else own)
        use(path, other)

    attack()
