"""The log's lines: read by type, and bad ones kept apart while the run continues."""

import json

import pytest
from hypothesis import HealthCheck, given, settings

from datasets.files import DataError
from engine.metrics import EpochStats
from engine.training.log import BAD_LINES, LOG_FILE, RunLog
from engine.training.records import EpochRecord, read_log
from tests.mutations import mutated

PASS = {"loss": 1.5, "top1": 50.0, "top3": 100.0, "seconds_loading": 0.1}
LINES = [
    json.dumps({"epoch": n, "lr": 0.1, "steps": 2, "train": PASS, "val": PASS}) for n in (1, 2, 3)
]
VALID = "".join(line + "\n" for line in LINES).encode()
BAD = [
    b"\x00\xff\x80",
    b"[" * 50_000,
    b'{"epoch": 1}',
    LINES[0].replace("1.5", "NaN").encode(),
    LINES[0].replace("50.0", "NaN").encode(),
    LINES[0].replace("50.0", "101").encode(),
    LINES[0].replace("1.5", "9" * 5000).encode(),
    LINES[0].replace(": 1,", ": " + "9" * 5000 + ",").encode(),
    LINES[0].replace('"epoch": 1', '"epoch": "1"').encode(),
    LINES[0][:-5].encode(),
    b"null",
]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_is_kept_apart_and_said(tmp_path, capsys, bad):
    first, second, third = VALID.splitlines(keepends=True)
    (tmp_path / LOG_FILE).write_bytes(first + bad + b"\n" + second + third.rstrip())
    with RunLog(tmp_path, 2) as log:
        log.epoch(2, 0.1, EpochStats(videos=2), EpochStats(videos=2))
        log.plot()
    assert "1 lines of" in capsys.readouterr().out
    assert (tmp_path / BAD_LINES).read_bytes() == bad + b"\n"
    assert (tmp_path / "log.dropped.jsonl").read_bytes() == third
    epochs, left = read_log(tmp_path / LOG_FILE)
    assert [record.epoch for record, _ in epochs] == [1, 2, 3] and left == []
    assert (tmp_path / LOG_FILE).read_bytes().startswith(first + second)
    assert (tmp_path / "curves.png").exists()


def test_a_log_that_is_no_file_is_refused(tmp_path):
    (tmp_path / LOG_FILE).mkdir()
    with pytest.raises(DataError, match="is a folder, not a file"):
        RunLog(tmp_path, 0)


def test_a_good_log_stays_as_it_is(tmp_path, capsys):
    (tmp_path / LOG_FILE).write_bytes(VALID)
    RunLog(tmp_path, 3).close()
    assert (tmp_path / LOG_FILE).read_bytes() == VALID and capsys.readouterr().out == ""
    assert not (tmp_path / BAD_LINES).exists()


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=mutated(VALID))
def test_any_log_is_read_or_refused_in_words(tmp_path, content):
    (tmp_path / LOG_FILE).write_bytes(content)
    epochs, bad = read_log(tmp_path / LOG_FILE)
    for record, _ in epochs:
        assert isinstance(record, EpochRecord) and 0 <= record.val.top1 <= 100
    kept = [line for _, line in epochs] + bad
    assert sorted(kept) == sorted(line for line in content.split(b"\n") if line.strip())
