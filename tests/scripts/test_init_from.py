"""A head trained on a cache, then the whole network: the second training begins with the first."""

import pytest
import torch

import two_stream_bert2
from engine.checkpoint import BEST
from engine.files import run_folder
from scripts import cache_tokens

ARCH = "rgb_tiny3D16f_bert10"


def test_a_head_from_a_cache_starts_the_training_of_the_whole_network(tiny, tmp_path, capsys):
    data = [*tiny.flags, "--workers", "0"]
    cache = ["--cache", str(tmp_path / "cache")]
    flags = ["--views", "2", "--clips", "single", "--no-ten-crop", "--weights", "none"]
    assert cache_tokens.main([*data, *cache, *flags, "--arch", ARCH]) == 0
    learn = ["--arch", ARCH, "-b", "4", "--iter-size", "1", "--epochs", "1", "--lr", "1e-3"]
    probe = ["--output", str(tmp_path / "probe"), "--weights", "none"]
    assert two_stream_bert2.main([*data, *cache, *learn, *probe]) == 0
    run = run_folder(tmp_path / "probe", tiny.name, ARCH, 1)
    whole = ["--output", str(tmp_path / "whole"), "--init-from", str(run), "--lr", "0"]
    assert two_stream_bert2.main([*data, *learn[:-2], *whole, "--freeze-bn"]) == 0
    assert "new: nothing" in capsys.readouterr().out
    states = [
        torch.load(folder / BEST, weights_only=True)["state_dict"]
        for folder in (run, run_folder(tmp_path / "whole", tiny.name, ARCH, 1))
    ]
    for key, value in states[0].items():  # a rate of 0 leaves the weights it began with
        assert torch.equal(states[1][key], value), key


def test_a_run_that_is_not_there_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        two_stream_bert2.main(["--init-from", str(tmp_path)])
    assert "no run that can be started from" in capsys.readouterr().err
