"""Files that earlier code wrote stay readable: a run, a pack, a token cache, a score file of each.

Version 1.0.0 made them, before the engine was divided into rooms.
"""

import json
import shutil

import pytest

import two_stream_bert2
from engine.testing.score_files import read_scores
from engine.tokens.cache import open_cache
from scripts import summarize
from tests.conftest import ROOT

EARLIER = ROOT / "tests" / "earlier_files"
DATA = ["--dataset", "toy", "--settings", EARLIER / "settings", "--frames", EARLIER / "packs"]
RECIPE = ["-b", 2, "--iter-size", 1, "--lr", 1e-3, "--workers", 0, "--epochs", 2]


def train(output, arch, *more) -> list[dict]:
    """Trains; returns the log."""
    flags = [*DATA, *RECIPE, "--arch", arch, "--output", output, *more]
    assert two_stream_bert2.main(list(map(str, flags))) == 0
    log = (output / f"toy_{arch}_split1" / "log.jsonl").read_text()
    return [json.loads(line) for line in log.splitlines()]


def test_a_run_resumes_within_its_epoch_and_reads_its_pack(tmp_path, capsys):
    shutil.copytree(EARLIER / "runs", tmp_path / "runs")
    (line,) = train(tmp_path / "runs", "rgb_tiny3D16f", "-c", "last")
    printed = capsys.readouterr().out
    assert "from the pack" in printed and "1 epochs done and 1 steps of the next" in printed
    assert "warning" not in printed and "note:" not in printed
    assert line["epoch"] == 2 and line["steps"] == 3
    # What the run came to that earlier code did not interrupt.
    assert line["train"]["loss"] == pytest.approx(0.8638, abs=2e-3)
    assert line["val"]["loss"] == pytest.approx(2.3243, abs=2e-2)


def test_a_token_cache_trains_a_head(tmp_path, capsys):
    cache = open_cache(EARLIER / "tokens")
    assert [len(tokens) for tokens in cache.train.tokens] == [2] * 6
    log = train(tmp_path, "rgb_tiny3D16f_bert10", "--cache", EARLIER / "tokens")
    assert [line["epoch"] for line in log] == [1, 2]
    assert f"tokens: {EARLIER / 'tokens'}" in capsys.readouterr().out


def test_a_score_file_is_summarized(capsys):
    file = read_scores(EARLIER / "scores" / "toy.npz")
    assert (len(file.videos), file.classes) == (3, ("left", "middle", "right"))
    assert file.metadata["arch"] == "rgb_tiny3D16f" and file.metadata["split"] == 1
    assert summarize.main([str(file.path)]) == 0
    assert "toy rgb_tiny3D16f, multi clip, 10 crops" in capsys.readouterr().out
