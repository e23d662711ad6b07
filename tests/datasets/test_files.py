"""Names and files from outside: what is refused before anything is opened."""

import errno
import os
import re
import socket

import pytest

from datasets.files import (
    DataError,
    check_file,
    check_name,
    check_writable,
    decode_json,
    printable,
    read_limited,
    read_text,
    written_whole,
)

HOSTILE_NAMES = [
    *("", ".", "..", "...", "/abs", "a/../b", "a//b", "../x", "./x", " a", "a ", "a\tb", "a\nb"),
    *("a\0b", "a\x85b", "a\u2028b", "a\u2029b", "a\x1b[31m", "a\udcffb", "x" * 256, "a/ b"),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_lead_out_or_that_lists_cannot_hold_are_refused(name):
    for nested in (False, True):
        with pytest.raises(DataError, match=r"the class .*; rename it") as refused:
            check_name(name, "the class", nested)
        assert "\x1b" not in str(refused.value) and "\0" not in str(refused.value)


def test_other_names_stay():
    for name in ("arm wrestling", "..a", "a.b", "Kärnten", "日本", "-x", "a\u0301"):
        assert check_name(name, "the class") == name
    assert check_name("a/b c/d", "the video", nested=True) == "a/b c/d"
    with pytest.raises(DataError):
        check_name("a/b", "the class")


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        cases = dict(pipe="a pipe", folder="a folder", socket="a socket", loop="link|symbolic")
        cases |= dict(dangling="the link leads to no file", none="there is no such file")
        for name, why in cases.items():
            with pytest.raises(DataError, match=why):
                check_file(tmp_path / name)
    with pytest.raises(DataError, match="a device"):
        check_file(tmp_path / "/dev/zero")
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "one"
    with pytest.raises(DataError, match="larger than 5 bytes"):
        read_limited(tmp_path / "file", most=5)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "x"}', b"\xff", b"", b"[1]"]
)
def test_json_of_other_types_is_refused(content):
    with pytest.raises(DataError, match="cannot read about.json"):
        decode_json(content, dict[str, int], "about.json")
    assert decode_json(b'{"a": 1}', dict[str, int], "about.json") == {"a": 1}


def test_what_a_terminal_would_obey_is_escaped():
    assert printable("a\x1b[2Jb\u009b\nc\tä") == "a\\x1b[2Jb\\x9b\nc\tä"


def test_a_full_disk_is_said_with_the_path(tmp_path):
    path = tmp_path / "x" / "last.pth"
    with pytest.raises(OSError, match=f"disk full: '{re.escape(str(path))}'"):
        with written_whole(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(path.parent.iterdir())


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path):
    check_writable(tmp_path / "a/b")
    assert not list((tmp_path / "a/b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file")
