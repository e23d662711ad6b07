"""The lists: what a line may hold, and how a bad one is reported."""

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets import create_dataset
from datasets.doctor import check_lists, open_checked
from datasets.files import DataError
from datasets.fingerprint import describe_list
from datasets.lists import read_list
from datasets.prepare.jobs import write_list
from datasets.records import VideoRecord
from datasets.specs import read_class_names
from tests.conftest import TinyDataset
from tests.mutations import mutated


def make_list(tmp_path, text: str):
    path = tmp_path / "train_rgb_split1.txt"
    path.write_text(text)
    return path


def test_folder_names_may_hold_anything_but_two_last_numbers(tmp_path):
    path = make_list(tmp_path, "a b#(1) [x] 7 0\n\nplain\t12\t3\n  nested/v_1  5 1 \n")
    assert read_list(path) == [
        VideoRecord("a b#(1) [x]", 7, 0, f"{path}:1"),
        VideoRecord("plain", 12, 3, f"{path}:3"),
        VideoRecord("nested/v_1", 5, 1, f"{path}:4"),
    ]


def test_written_lists_read_back(tmp_path):
    path = tmp_path / "new" / "list.txt"
    write_list(path, [("a b", 3, 0), ("c", 4, 1)])
    assert [(r.folder, r.count, r.label) for r in read_list(path)] == [("a b", 3, 0), ("c", 4, 1)]
    assert [p.name for p in path.parent.iterdir()] == ["list.txt"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v_1 12", ":2: expected 'folder count label', got 'v_1 12'"),
        ("v_1 twelve 0", ":2: count and label must be whole numbers"),
        ("v_1 12 0.5", ":2: count and label must be whole numbers"),
        ("v_1 0 0", ":2: the count of 'v_1' must be at least 1"),
        ("v_1 12 -1", r":2: the label of 'v_1' must be 0\.\.50, not -1"),
        ("v_1 12 51", r":2: the label of 'v_1' must be 0\.\.50, not 51"),
        ("../v_1 12 0", ":2: the folder '../v_1' lies outside"),
        ("/etc 12 0", ":2: the folder '/etc' lies outside"),
        ("a/../b 12 0", ":2: the folder 'a/../b' lies outside"),
        ("//a 12 0", ":2: the folder '//a' lies outside"),
        (". 12 0", ":2: the folder '.': a name of dots alone"),
        ("a/... 12 0", ":2: the folder 'a/...': a name of dots alone"),
        ("a\0b 12 0", r":2: the folder 'a\\x00b': it holds control characters"),
        ("a\x85b 12 0", r":2: the folder 'a\\x85b': it holds control characters"),
        ("a\u2028b 12 0", r":2: the folder 'a\\u2028b': it holds control characters"),
        ("a\rb 12 0", r":2: the folder 'a\\rb': it holds control characters"),
        ("a\x1b[31m 12 0", r":2: the folder 'a\\x1b\[31m': it holds control characters"),
        ("a\u202812\u20280", ":2: expected 'folder count label'"),
        ("x" * 256 + " 12 0", ":2: the folder .* is longer than 255 bytes"),
        ("x/" * 600 + "x 12 0", ":2: the folder's name is longer than 1024 bytes"),
        ("v_1 +12 0", ":2: count and label must be whole numbers"),
        ("v_1 1_2 0", ":2: count and label must be whole numbers"),
        ("v_1 \u0661\u0662 0", ":2: count and label must be whole numbers"),
        ("v_1 " + "9" * 5000 + " 0", ":2: count and label must be whole numbers"),
        ("v_1 12 " + "9" * 5000, ":2: count and label must be whole numbers"),
        ("v_1 1000000000000 0", ":2: the count of 'v_1' must be at most 10,000,000"),
        ("v_1 12 300000000", ":2: the label of 'v_1' must be below 100,000"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = make_list(tmp_path, f"good 3 0\n{line}\n")
    with pytest.raises(DataError, match=message) as refused:
        read_list(path, num_classes=51)
    assert len(str(refused.value)) < 2000


def test_names_come_in_their_shortest_form(tmp_path):
    path = make_list(tmp_path, "./a//b 3 0\na/./c/ 3 0\n..d 3 0\n")
    assert [record.folder for record in read_list(path)] == ["a/b", "a/c", "..d"]


def plant_odd_file(kind: str, path) -> None:
    """A pipe, folder, dangling link, link to itself, or link to a device in a file's place."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"dangling": "absent", "loop": path.name, "device": "/dev/zero"}[kind])


ODD_KINDS = ("pipe", "folder", "dangling", "loop", "device")


@pytest.mark.parametrize("kind", ODD_KINDS)
def test_what_is_no_file_is_refused_by_its_type(tmp_path, kind):
    for name, read in (("val_rgb_split1.txt", read_list), ("classes.txt", read_class_names)):
        plant_odd_file(kind, tmp_path / name)
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)


def test_many_class_names_are_read_in_no_time_and_more_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"class {n}\n" for n in range(100_000)))
    begun = time.process_time()
    assert len(read_class_names(path)) == 100_000
    assert time.process_time() - begun < 5
    path.write_text("".join(f"class {n}\n" for n in range(100_001)))
    with pytest.raises(DataError, match="100,001 classes; at most 100,000"):
        read_class_names(path)
    path.write_text("a\nb\u2028c\n")
    with pytest.raises(DataError, match=r":2: the class name 'b\\u2028c' holds control"):
        read_class_names(path)


@pytest.mark.parametrize("again", ["v", "./v", "v/", ".//v"])
def test_a_test_list_names_no_video_twice(tmp_path, again):
    toy = TinyDataset(tmp_path)
    for folder in ("v", "w"):
        toy.add_video(folder, 0, 4)
        toy.write_lists("train", [(folder, 4, 0), (f"./{folder}", 4, 0)])
    toy.write_lists("val", [("v", 4, 0), (again, 4, 0)])
    for subsets in (("val",), ("train", "val")):
        with pytest.raises(DataError, match=r"val_rgb_split1.txt:2: 'v' is listed already"):
            create_dataset("toy", 1, "rgb", toy.settings, toy.frames, subsets)
    found = check_lists(open_checked("toy", toy.settings, toy.frames, modalities=("rgb",)))
    assert {(f.severity, f.kind, f.video) for f in found} == {
        ("error", "listed-twice", "v"),
        ("warning", "listed-twice", "w"),
    }
    assert len(create_dataset("toy", 1, "rgb", toy.settings, toy.frames, ("train",)).train) == 2
    # the same video on both sides, spelled differently
    toy.write_lists("train", [(again, 4, 0)])
    found = check_lists(open_checked("toy", toy.settings, toy.frames, modalities=("rgb",)))
    assert "train-and-test" in {f.kind for f in found}


def test_a_fingerprint_knows_a_video_however_it_is_spelled(tmp_path):
    lists = (make_list(tmp_path, text) for text in ("a/b 3 0\n", "./a//b 3 0\n"))
    plain, spelled = [describe_list(read_list(path)) for path in lists]
    assert plain == spelled


def test_missing_empty_and_binary_lists(tmp_path):
    with pytest.raises(DataError, match="no list .*make_lists.py"):
        read_list(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="is empty"):
        read_list(make_list(tmp_path, "\n \n"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read .*binary.txt"):
        read_list(tmp_path / "binary.txt")


def test_class_names(tmp_path):
    path = tmp_path / "classes.txt"
    assert read_class_names(path) is None
    path.write_text("brush hair\n\ncartwheel\n")
    assert read_class_names(path) == ["brush hair", "cartwheel"]
    path.write_text("kick\nhug\nkick\n")
    with pytest.raises(DataError, match="twice: kick"):
        read_class_names(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_class_names(path)


words = st.text(max_size=8) | st.integers().map(str) | st.sampled_from(["a", "../a", "/a", "a/.."])
lines = st.lists(words, max_size=5).map(" ".join)
fuzzed = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzzed
@given(
    content=st.binary(max_size=200)
    | st.lists(lines, max_size=4).map("\n".join)
    | mutated("a b/v_1 12 0\n./k\u00e4se 300 4\n\nlast 7 3".encode())
)
def test_any_list_is_read_or_refused_in_words(tmp_path, content):
    path = tmp_path / "train_rgb_split1.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    try:
        records = read_list(path, num_classes=5)
    except DataError as error:
        assert str(path) in str(error)
        return
    assert records
    for record in records:
        assert record.count >= 1 and 0 <= record.label < 5
        assert not record.folder.startswith("/") and ".." not in record.folder.split("/")


@fuzzed
@given(
    content=st.binary(max_size=100)
    | st.text(max_size=100).map(str.encode)
    | mutated("brush hair\nk\u00e4se\n\ncartwheel\n".encode())
)
def test_any_class_names_are_read_or_refused_in_words(tmp_path, content):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    try:
        names = read_class_names(path)
    except DataError as error:
        assert str(path) in str(error)
        return
    assert names and len(set(names)) == len(names)
