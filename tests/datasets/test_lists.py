"""The lists: what a line may hold, and how a bad one is reported."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.files import DataError
from datasets.lists import read_list
from datasets.prepare.jobs import write_list
from datasets.records import VideoRecord
from datasets.specs import read_class_names


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
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = make_list(tmp_path, f"good 3 0\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_list(path, num_classes=51)


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
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzzed
@given(content=st.binary(max_size=200) | st.lists(lines, max_size=4).map("\n".join))
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
@given(content=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_class_names_are_read_or_refused_in_words(tmp_path, content):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    try:
        names = read_class_names(path)
    except DataError as error:
        assert str(path) in str(error)
        return
    assert names and len(set(names)) == len(names)
