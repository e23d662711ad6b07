"""The log of a training on a disk that is full for a while; the advice about slow loading."""

import json
from types import SimpleNamespace

import pytest

from datasets.sources.choose import FOLDERS, PACKED, VIDEOS
from engine.config import Recipe
from engine.data import remedies
from engine.files import append_whole
from engine.metrics import EpochStats
from engine.training.log import LOG_FILE, LoadingAdvice, RunLog, few_steps
from models import get_arch


def remedies_of(kind: str = FOLDERS, workers: int = 1, scaled: bool = False) -> list[str]:
    split = SimpleNamespace(source=SimpleNamespace(kind=kind, pack=None), dataset="toy")
    return remedies(split, get_arch("rgb_resneXt3D64f101"), workers, scaled)


def advice(workers: int = 1) -> LoadingAdvice:
    return LoadingAdvice(remedies_of(workers=workers), workers)


def test_it_speaks_once_and_only_of_real_waiting(capsys):
    advisor = advice()
    advisor.check(EpochStats(clips=100, loading=19, computing=81))
    advisor.check(EpochStats(clips=10, loading=9, computing=1))  # too early to tell
    assert capsys.readouterr().out == ""
    for _ in range(3):
        advisor.check(EpochStats(clips=100, loading=30, computing=70))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("waiting for data 30 % of the time: the loader gives 1.0 clips/s, ")
    assert "could take 1.4" in line and "--size 170x128" in line
    assert "docs/LOADING.md" in line


def test_the_end_of_a_short_epoch_counts(capsys):
    advice().check(EpochStats(clips=10, loading=5, computing=5), whole_epoch=True)
    assert "waiting for data 50 %" in capsys.readouterr().out


def test_epochs_of_seconds_get_no_advice(capsys):
    advice().check(EpochStats(clips=10, loading=4, computing=4), whole_epoch=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("videos", "batch", "iter_size", "lr", "said"),
    [
        (27, 8, 16, 1e-5, "27 training videos are 1 optimizer step an epoch"),
        (27, 8, 16, 1e-5, "--iter-size 1 --lr 1e-3 (from pretrained weights --recipe few-videos);"),
        (60, 4, 6, 1e-2, "are 3 optimizer steps an epoch"),
        (60, 4, 6, 1e-2, "What fits: --batch-size 4 --iter-size 1; docs/TRAINING.md, Few videos"),
        (60, 6, 1, 1e-3, None),
        (3570, 8, 16, 1e-5, None),
        (6, 2, 2, 1e-3, None),  # no batch size would help
    ],
)
def test_epochs_of_few_steps_are_warned_of(videos, batch, iter_size, lr, said):
    recipe = Recipe(batch_size=batch, iter_size=iter_size, lr=lr)
    warning = few_steps(videos, recipe, 1)
    assert said in warning if said else warning == ""
    assert not said or warning.startswith("\nwarning: ")


def test_nothing_of_it_would_help_on_a_cache(capsys):
    LoadingAdvice([], 0).check(EpochStats(clips=100, loading=50, computing=50))
    assert capsys.readouterr().out == ""


def test_without_loader_processes_loading_alone_is_the_loaders_time():
    message = advice(workers=0).message(EpochStats(clips=100, loading=50, computing=50))
    assert "the loader gives 2.0 clips/s" in message


@pytest.mark.parametrize(
    ("kind", "scaled", "words"),
    [
        (FOLDERS, False, ["--workers", "pack_frames.py", "--scaled-decoding"]),
        (FOLDERS, True, ["--workers", "pack_frames.py"]),
        (PACKED, False, ["--workers"]),
        (VIDEOS, False, ["--workers", "prepare_videos.py"]),
    ],
)
def test_only_what_is_not_done_is_advised(kind, scaled, words, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    found = remedies_of(kind, 1, scaled)
    assert len(found) == len(words)
    assert all(word in remedy for word, remedy in zip(words, found, strict=True))
    assert remedies_of(PACKED, 4) == ["a machine with more cores"]


def record(log: RunLog, number: int) -> None:
    log.epoch(number, 0.1, EpochStats(videos=2, top1_hits=1), EpochStats(videos=2))


def epochs(folder) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / LOG_FILE).read_text().splitlines()]


def test_lines_wait_while_the_disk_is_full(tmp_path, capsys):
    log = RunLog(tmp_path, 0)
    record(log, 0)
    (tmp_path / LOG_FILE).rename(tmp_path / "kept")
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    record(log, 1)
    assert "disk full" in capsys.readouterr().out
    (tmp_path / LOG_FILE).unlink()
    (tmp_path / "kept").rename(tmp_path / LOG_FILE)
    record(log, 2)
    log.close()
    assert epochs(tmp_path) == [1, 2, 3]


def test_lines_that_wait_are_written_at_the_end(tmp_path):
    log = RunLog(tmp_path, 0)
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    record(log, 0)
    (tmp_path / LOG_FILE).unlink()
    log.close()
    assert epochs(tmp_path) == [1]


def test_events_end_on_a_full_disk_and_the_training_does_not(tmp_path, capsys, monkeypatch):
    log = RunLog(tmp_path, 0)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.writer, "add_scalar", full)
    for number in range(2):
        record(log, number)
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
    with pytest.raises(OSError, match="disk full"):
        append_whole(path, ["two\n"])
    monkeypatch.undo()
    assert path.read_text() == "one\n"
