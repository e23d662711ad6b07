"""Views of a video and their mean."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.records import VideoRecord
from engine import UsageError, config
from engine.loading import ClipViews
from engine.testing import run
from engine.testing.score import score_videos
from engine.testing.score_files import read_scores
from engine.testing.stream import Stream
from engine.testing.token_order import TimeOrder
from models import get_arch
from video_transforms import INVERTED, NO_FLIP, PLAIN, flip_clip, views

SPEC = get_arch("flow_tiny3D16f")


def a_video(frames=20, channels=2):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (frames, 64, 85, channels), dtype=np.uint8)
    return images, [np.arange(16), np.arange(4, 20)]


@pytest.mark.parametrize("rule", [PLAIN, INVERTED])
def test_ten_crops_in_order(rule):
    images, clips = a_video()
    found = [view for clip in clips for view in views(images[clip], 56, True, rule)]
    assert len(found) == 20
    corners = [(4, 14), (0, 0), (0, 29), (8, 0), (8, 29)]  # centre, then row by row
    for number, clip in enumerate(clips):
        mirrored = flip_clip(images[clip], rule)
        for place, (top, left) in enumerate(corners):
            window = (slice(None), slice(top, top + 56), slice(left, left + 56))
            assert np.array_equal(found[10 * number + place], images[clip][window])
            assert np.array_equal(found[10 * number + 5 + place], mirrored[window])


def test_one_crop_and_no_mirroring():
    images, _ = a_video()
    assert len(list(views(images, 56, False, PLAIN))) == 1
    five = list(views(images, 56, True, NO_FLIP))
    ten = list(views(images, 56, True, PLAIN))
    assert len(five) == 5
    assert all(np.array_equal(a, b) for a, b in zip(five, ten[:5], strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_score_is_the_mean_over_all_views_whatever_the_batch(batch_size):
    images, clips = a_video()
    seen = []

    def model(x, reorder):
        seen.append(len(x))
        return x.mean(dim=(2, 3, 4))

    stream = SimpleNamespace(
        spec=SPEC,
        split=SimpleNamespace(class_names=["a", "b"]),
        model=SimpleNamespace(classify=model),
        encode=lambda x: x,
        device=torch.device("cpu"),
        prepare=lambda c: c.permute(0, 4, 1, 2, 3).float(),
        order=TimeOrder(),
        batch_size=batch_size,
    )
    crops = [list(views(images[clip], 56, True, PLAIN)) for clip in clips]
    shown = [ClipViews(3, crops[0]), ClipViews(3, crops[1]), ClipViews(5, crops[1])]
    shown[2:2] = [ClipViews(4, crops[0]), ClipViews(4, (), "'v' is unreadable")]
    first, bad, last = score_videos(stream, shown)
    means = [[view.mean(axis=(0, 1, 2)) for view in own] for own in crops]
    row, score, by_clip, error = first
    assert (row, error) == (3, "") and score.dtype == np.float32
    np.testing.assert_allclose(score, np.mean(means, (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(by_clip, np.mean(means, 1), rtol=1e-5)
    assert last[0] == 5
    np.testing.assert_allclose(last[1], np.mean(means[1], 0), rtol=1e-5)
    assert bad[0] == 4 and bad[3] == "'v' is unreadable" and np.isnan(bad[1]).all()
    assert bad[2].shape == (1, 2)
    # full batches, over the ends of clips and of videos
    assert set(seen) == {batch_size} and len(seen) == -(-40 // batch_size)


def test_a_shuffled_order_does_not_depend_on_batches():
    tokens = torch.arange(8.0).expand(6, 8)
    rows = [3, 3, 3, 7, 7, 9]
    whole, parts = TimeOrder("shuffled"), TimeOrder("shuffled")
    whole.start(rows)
    cuts = []
    for start in range(0, 6, 2):
        parts.start(rows[start : start + 2])
        cuts.append(parts(tokens[start : start + 2]))
    assert torch.equal(whole(tokens), torch.cat(cuts))
    assert not torch.equal(cuts[0][0], cuts[0][1])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("you can't allocate memory: 1 TB")])
def test_no_memory_names_the_video_and_what_helps(error):
    def model(x, reorder):
        raise error

    stream = SimpleNamespace(
        split=SimpleNamespace(class_names=["a"], val=[SimpleNamespace(folder="c/long")]),
        model=SimpleNamespace(classify=model),
        encode=lambda x: x,
        device=torch.device("cpu"),
        prepare=lambda views: views,
        order=TimeOrder(),
        batch_size=2,
    )
    shown = [ClipViews(0, [np.zeros((4, 8, 8, 3), np.uint8)])]
    with pytest.raises(UsageError, match="no memory for 2 views of 'c/long'.*--batch-size"):
        list(score_videos(stream, shown))


class Faulty:
    """A network whose logits are not finite for clips of a mark."""

    def __init__(self, value):
        self.value = value

    def classify(self, x, reorder):
        logits = x.mean(dim=(2, 3, 4))
        logits[x.amax(dim=(1, 2, 3, 4)) == 255, 1] = self.value
        return logits


@pytest.mark.parametrize(
    ("value", "clips_of_it"), [(np.nan, 1), (np.nan, 2), (np.inf, 1), (-np.inf, 2)]
)
def test_a_video_whose_logits_are_not_finite_is_unscored_and_named(
    value, clips_of_it, tmp_path, monkeypatch, capsys
):
    """One clip of it is enough, and the batches that it shares with others do them no harm."""
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 200, (3, 16, 8, 8, 2), dtype=np.uint8) for _ in range(6)]
    for crop in crops[2 : 2 + clips_of_it]:
        crop[1, 3, 2, 2, 0] = 255
    records = [VideoRecord(f"v{n}", 16, 0, f"val.txt:{n + 1}") for n in range(3)]
    stream = Stream(
        SPEC,
        SimpleNamespace(class_names=["a", "b"], val=records, number=1),
        Faulty(value),
        torch.device("cpu"),
        PLAIN,
        tmp_path / "model.pth.tar",
        lambda rows: (ClipViews(row, crops[2 * row + n]) for row in rows for n in (0, 1)),
        lambda c: c.permute(0, 4, 1, 2, 3).float(),
        batch_size=4,
    )
    monkeypatch.setattr(run, "build_stream", lambda *_: stream)
    data = config.DataConfig("toy")
    test = config.TestConfig(data, results=tmp_path, scores=tmp_path / "x.npz")
    assert run.run_test(test, (SPEC.name, None)) == 1
    # the file
    file = read_scores(tmp_path / "x.npz")
    assert np.isnan(file.scores).all(axis=1).tolist() == [False, True, False]
    assert file.clip_videos.tolist() == [0, 0, 1, 2, 2] and np.isnan(file.clip_scores[2]).all()
    for row in (0, 2):
        means = np.concatenate(crops[2 * row : 2 * row + 2]).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(file.scores[row], means.mean(axis=0), rtol=1e-5)
    # the summary
    reason = "val.txt:2: 'v1': the network's scores are not finite"
    assert f"not scored, counts as wrong: {reason}" in capsys.readouterr().out
    summary = json.loads(
        (tmp_path / f"toy_{SPEC.name}_split1_multi_clip_ten_crop.json").read_text()
    )
    assert summary["unscored"] == {"v1": reason}
    correct = (file.scores[[0, 2]].argmax(axis=1) == 0).sum()
    assert summary["videos"] == 3 and summary["top1"] == pytest.approx(100 * correct / 3, abs=1e-3)
