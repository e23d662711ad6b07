"""The log of a training, on a disk that is full for a while."""

import json

import pytest

from engine.files import append_whole
from engine.metrics import PassResult
from engine.report import LOG_FILE, RunLog


def book(log: RunLog, number: int) -> None:
    log.epoch(number, 0.1, PassResult(videos=2, top1_hits=1), PassResult(videos=2))


def epochs(folder) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / LOG_FILE).read_text().splitlines()]


def test_lines_wait_while_the_disk_is_full(tmp_path, capsys):
    log = RunLog(tmp_path, 0)
    book(log, 0)
    (tmp_path / LOG_FILE).rename(tmp_path / "kept")
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    book(log, 1)
    assert "No space left on device" in capsys.readouterr().out
    (tmp_path / LOG_FILE).unlink()
    (tmp_path / "kept").rename(tmp_path / LOG_FILE)
    book(log, 2)
    log.close()
    assert epochs(tmp_path) == [1, 2, 3]


def test_lines_that_wait_are_written_at_the_end(tmp_path):
    log = RunLog(tmp_path, 0)
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    book(log, 0)
    (tmp_path / LOG_FILE).unlink()
    log.close()
    assert epochs(tmp_path) == [1]


def test_events_end_on_a_full_disk_and_the_training_does_not(tmp_path, capsys, monkeypatch):
    log = RunLog(tmp_path, 0)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.writer, "add_scalar", full)
    for number in range(2):
        book(log, number)
    log.close()
    assert epochs(tmp_path) == [1, 2]
    assert capsys.readouterr().out.count("TensorBoard's events end here") == 1


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "log"
    append_whole(path, ["one\n"])

    class Cut:
        """Writes a part, then the disk is full."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def writelines(self, lines):
            self.file.write(lines[0][:2])
            self.file.flush()
            raise OSError(28, "No space left on device")

    real = open
    monkeypatch.setattr("builtins.open", lambda *a, **k: Cut(real(*a, **k)))
    with pytest.raises(OSError, match="No space"):
        append_whole(path, ["two\n"])
    monkeypatch.undo()
    assert path.read_text() == "one\n"
