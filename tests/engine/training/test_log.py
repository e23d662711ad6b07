"""The advice about slow loading: when, once, and what it says."""

from types import SimpleNamespace

import pytest

from datasets.sources.choose import FOLDERS, PACKED, VIDEOS
from engine.loading_advice import LoadingAdvice
from engine.metrics import PassResult
from models import get_arch


def advice(
    kind: str = FOLDERS, workers: int = 1, scaled: bool = False, cache: object = None
) -> LoadingAdvice:
    split = SimpleNamespace(source=SimpleNamespace(kind=kind, pack=None), dataset="toy")
    spec = get_arch("rgb_resneXt3D64f101")
    training = SimpleNamespace(split=split, spec=spec, cache=cache)
    return LoadingAdvice(training, workers, scaled)


def test_it_speaks_once_and_only_of_real_waiting(capsys):
    advisor = advice()
    advisor.look(PassResult(clips=100, loading=19, computing=81))
    advisor.look(PassResult(clips=10, loading=9, computing=1))  # too early to tell
    assert capsys.readouterr().out == ""
    for _ in range(3):
        advisor.look(PassResult(clips=100, loading=30, computing=70))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("waiting for data 30 % of the time: the loader gives 1.0 clips/s, ")
    assert "could take 1.4" in line and "--size 170x128" in line
    assert "docs/LOADING.md" in line


def test_the_end_of_a_short_epoch_counts(capsys):
    advice().look(PassResult(clips=10, loading=5, computing=5), whole_epoch=True)
    assert "waiting for data 50 %" in capsys.readouterr().out


def test_nothing_of_it_would_help_on_a_cache(capsys):
    advice(cache=object()).look(PassResult(clips=100, loading=50, computing=50))
    assert capsys.readouterr().out == ""


def test_without_loader_processes_loading_alone_is_the_loaders_time():
    message = advice(workers=0).message(PassResult(clips=100, loading=50, computing=50))
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
    remedies = advice(kind, 1, scaled).remedies()
    assert len(remedies) == len(words)
    assert all(word in remedy for word, remedy in zip(words, remedies, strict=True))
    assert advice(PACKED, 4).remedies() == ["a machine with more cores"]
