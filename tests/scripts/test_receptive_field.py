"""receptive_field.py: which frames a token sees."""

import re

import numpy as np
import pytest
import torch

from engine import UsageError
from models import create_model
from scripts import receptive_field


def test_a_frame_outside_of_the_field_changes_nothing():
    torch.manual_seed(0)
    model = create_model("rgb_tiny3D16f", 2).eval()
    clip = torch.randn(1, *model.spec.clip_shape)
    shares = receptive_field.gradient_by_frame(model, clip.clone())
    assert shares.shape == (8, 16)
    assert np.allclose(shares.sum(axis=1), 1)
    tokens = model.forward_tokens(clip)
    for frame in range(16):
        other = clip.clone()
        other[:, :, frame] += 1
        changed = (model.forward_tokens(other) - tokens).abs().amax(dim=(0, 2)) > 0
        assert (changed.numpy() == (shares[:, frame] > 0)).all()


def test_the_narrowest_span():
    shares = np.array([0.05, 0.0, 0.5, 0.4, 0.05])
    assert receptive_field.span(shares, 0.9) == (2, 3)
    assert receptive_field.span(shares, 1.0) == (0, 4)


def test_the_script(capsys):
    assert receptive_field.main(["--arch", "flow_tiny3D16f_FRMB"]) == 0
    out = capsys.readouterr().out
    assert "8 tokens of 16 frames" in out and re.search(r"3 +4 to 8 +4 to 8\n", out)
    with pytest.raises(UsageError, match="two kinds"):
        receptive_field.main(["--arch", "rgb_slowfast64f_50_bert10_FRMB_late", "--weights", "none"])
