"""attention.py: what it computes and refuses, and its picture."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import two_stream_bert2
from engine import UsageError
from engine.analysis.attention import CORRECT, WRONG, AttentionExample, choose_examples
from models import ArchError
from scripts import attention


def example(label: int, predicted: int) -> AttentionExample:
    return AttentionExample(label, predicted, np.zeros((2, 4, 4, 3), np.uint8), np.ones(2) / 3)


def test_both_kinds_are_chosen_and_of_different_classes():
    examples = [example(*pair) for pair in ((0, 0), (0, 0), (1, 1), (1, 0), (2, 2))]
    chosen = choose_examples(examples, 3)
    assert [(c.label, c.predicted) for c in chosen] == [(0, 0), (1, 1), (2, 2), (1, 0)]
    assert [c.colour for c in chosen] == [CORRECT] * 3 + [WRONG]


def test_the_picture_of_a_trained_network(tiny, tmp_path, capsys, monkeypatch):
    arch = "rgb_tiny3D16f_bert10_FRMB"
    flags = [*tiny.flags, "--arch", arch, "--workers", "0"]
    two_stream_bert2.main([*flags, "--output", str(tmp_path), "--max-steps", "1", "-b", "12"])
    picture = tmp_path / "deep" / "attention.png"
    seen = []
    monkeypatch.setattr(
        attention,
        "draw_examples",
        lambda found, *rest, draw=attention.draw_examples: seen.append(found) or draw(found, *rest),
    )
    assert attention.main([*flags, "--runs", str(tmp_path), "--picture", str(picture)]) == 0
    assert cv2.imread(str(picture)).shape[1] == 825
    below = cv2.imread(str(picture))[-110:]  # the classes' means
    assert {(0x2B, 0x6C, 0xB0), (0xC5, 0x30, 0x30)} & {tuple(p[::-1]) for p in below.reshape(-1, 3)}
    (examples,) = seen
    assert len(examples) == 9 and "of 9 videos correct" in capsys.readouterr().out
    for one in examples:
        assert one.frames.shape == (8, 56, 56, 3) and one.attention.shape == (8,)
        assert 0 < one.attention.sum() < 1  # the rest is the class token's on itself
    with pytest.raises(UsageError, match="no class token"):
        monkeypatch.setattr(
            attention,
            "build_stream",
            lambda *_: SimpleNamespace(spec=SimpleNamespace(class_token=False, name="x")),
        )
        attention.main(flags)


def test_a_network_without_bert_has_no_attention(tiny, tmp_path):
    flags = [*tiny.flags, "--arch", "rgb_tiny3D16f", "--workers", "0"]
    two_stream_bert2.main([*flags, "--output", str(tmp_path), "--max-steps", "1", "-b", "12"])
    with pytest.raises(ArchError, match="no BERT head"):
        attention.main([*flags, "--runs", str(tmp_path)])
