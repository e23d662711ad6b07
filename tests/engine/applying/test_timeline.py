"""Windows over long videos, segments by hysteresis, their files, and runs that go on."""

import json
import resource

import av
import numpy as np
import pytest

from engine.applying.footage import Footage
from engine.applying.live import watch
from engine.applying.predictor import load_predictor
from engine.applying.sliding import find_windows, slide
from engine.applying.sources import VideoSource
from engine.applying.timeline import find_segments, make_timeline
from engine.applying.timeline_files import (
    plot_timeline,
    write_overlay,
    write_subtitles,
    write_timeline_csv,
    write_timeline_json,
)
from engine.config import TimelineRules
from tests.engine.applying.made import CLASSES, coloured, noisy, save_sure_network, write_video

RULES = TimelineRules(smoothing=0, shortest=0.5)
PLAN = [(0, 50), (2, 75), (1, 50)]  # 2 s, 3 s, 2 s at 25 a second


@pytest.fixture(scope="module")
def sure(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "a.pth"
    return load_predictor(save_sure_network(path), ten_crop=False)


def footage(path, **options):
    return Footage(VideoSource(str(path), "file"), **options)


def segments(rows, rules=RULES, names=("a", "b", "none")):
    bounds = np.arange(len(rows) + 1.0)
    return [(s.label, s.start, s.end) for s in find_segments(bounds, np.array(rows), names, rules)]


def test_an_action_begins_at_enter_and_goes_on_above_leave():
    rows = [[0.4, 0, 0.6], [0.5, 0, 0.5], [0.36, 0.1, 0.4], [0.34, 0.2, 0.3], [0.45, 0, 0.3]]
    assert segments(rows, TimelineRules(smoothing=0, shortest=0.5, background="none")) == [
        (0, 1, 3)
    ]
    assert segments([[0.49, 0.49, 0.02]] * 4) == []


def test_a_more_probable_class_ends_an_action():
    rows = [[0.9, 0.1, 0], [0.4, 0.6, 0], [0.36, 0.6, 0], [0.9, 0.1, 0]]
    assert segments(rows) == [(0, 0, 1), (1, 1, 3), (0, 3, 4)]


def test_short_gaps_are_closed_and_short_actions_left_out():
    rows = [[0.9, 0, 0], [0.1, 0, 0.9], [0.9, 0, 0], [0, 0.9, 0]]
    own = TimelineRules(smoothing=0, gap=1, shortest=1.5, background="none")
    assert segments(rows, own) == [(0, 0, 3)]
    own = TimelineRules(smoothing=0, gap=0.9, shortest=0, background="none")
    assert segments(rows, own) == [(0, 0, 1), (0, 2, 3), (1, 3, 4)]


def test_smoothing_removes_a_single_wrong_window():
    windows = np.stack([np.arange(9) / 2, np.arange(9) / 2 + 2], axis=1)
    rows = np.tile([0.9, 0.1], (9, 1))
    rows[4] = [0.1, 0.9]
    rough = make_timeline(windows, rows, ("a", "b"), TimelineRules(smoothing=0, shortest=0))
    even = make_timeline(windows, rows, ("a", "b"), TimelineRules(smoothing=1.5))
    default = make_timeline(windows, rows, ("a", "b"), TimelineRules(smoothing=0))
    assert all(s.end - s.start >= 1 for s in default.segments)  # half a window
    assert len(rough.segments) > 1 and [s.label for s in even.segments] == [0]
    assert (even.segments[0].start, even.segments[0].end) == (0, 6)


@pytest.mark.parametrize("count", [2, 7, 8, 9, 15, 16, 40])
def test_windows_cover_every_frame(tmp_path, count):
    rows = ((n / 10, (np.full((2, 2, 3), n),)) for n in range(count))
    own = footage("none")
    own.rate = 10
    windows = list(find_windows(rows, 8, own, None))
    seen = {int(v) for _, (clip,) in windows for v in clip[:, 0, 0, 0]}
    assert seen == set(range(count)) and all(len(clip) == 8 for _, (clip,) in windows)
    assert windows[0][0][0] == 0 and windows[-1][0][1] == pytest.approx(count / 10)
    starts = [window[0] for window, _ in windows]
    assert starts == sorted(set(starts))


def test_a_video_of_known_parts_is_cut_there(tmp_path, sure):
    path = write_video(tmp_path / "a.mp4", coloured(PLAN))
    timeline = make_timeline(*slide(sure, footage(path), None), CLASSES, RULES)
    assert [s.label for s in timeline.segments] == [0, 2, 1]
    edges = [s.end for s in timeline.segments]
    assert edges == pytest.approx([2, 5, 7], abs=0.25)
    assert timeline.label_at(3).label == 2


def test_a_killed_run_goes_on_to_the_same_end(tmp_path, sure, monkeypatch):
    path = write_video(tmp_path / "a.mp4", noisy(100, (128, 96)))
    whole = slide(sure, footage(path), 0.1)
    progress = tmp_path / "kept.jsonl"
    from engine.applying import sliding

    kept, calls = sliding.append_whole, []

    def die(*args):
        calls.append(kept(*args))
        if len(calls) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(sliding, "append_whole", die)
    with pytest.raises(KeyboardInterrupt):
        slide(sure, footage(path), 0.1, progress)
    monkeypatch.setattr(sliding, "append_whole", kept)
    lines = progress.read_text().splitlines()
    assert len(lines) == 10
    progress.write_text("\n".join(lines)[:-20])  # cut off in the middle of a line
    own = footage(path)
    resumed = slide(sure, own, 0.1, progress)
    assert own.start > 0.5 and not progress.exists()
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_scores_of_another_network_or_step_are_not_taken_over(tmp_path, sure):
    path = write_video(tmp_path / "a.mp4", noisy(40))
    progress = tmp_path / "kept.jsonl"
    progress.write_text('{"files": [], "settings": []}\n{"window": [0, 1], "scores": [1, 2, 3]}\n')
    own = footage(path)
    assert len(slide(sure, own, 0.2, progress)[0]) > 1 and own.start == 0


def test_memory_does_not_grow_with_the_video(tmp_path, sure):
    sizes = []
    for count in (200, 2000):
        path = write_video(tmp_path / f"{count}.mp4", coloured([(0, count)], (256, 192)))
        slide(sure, footage(path), 2)
        sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert sizes[1] - sizes[0] < 60  # MB; its frames are 295


def test_the_files_say_what_the_timeline_says(tmp_path, sure):
    path = write_video(tmp_path / "a.mp4", coloured(PLAN))
    timeline = make_timeline(*slide(sure, footage(path), None), CLASSES, RULES)
    write_timeline_json(tmp_path / "t.json", "a.mp4", timeline, RULES, {"fps": 25})
    found = json.loads((tmp_path / "t.json").read_text())
    assert [s["label"] for s in found["segments"]] == ["left", "right", "middle"]
    assert len(found["probabilities"]) == 7 and found["rules"]["enter"] == 0.5
    write_timeline_csv(tmp_path / "t.csv", timeline)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "second,action,left,middle,right"
    assert [line.split(",")[1] for line in lines[1:]] == ["left"] * 2 + ["right"] * 3 + [
        "middle"
    ] * 2
    write_subtitles(tmp_path / "t.srt", timeline)
    with av.open(str(tmp_path / "t.srt")) as container:
        shown = [p for p in container.demux(subtitles=0) if p.size]
    assert len(shown) == 3
    plot_timeline(tmp_path / "t.png", "a.mp4", timeline, footage(path))
    assert (tmp_path / "t.png").stat().st_size > 10_000


def test_the_overlay_is_the_video_with_labels(tmp_path, sure):
    path = write_video(tmp_path / "a.mp4", coloured(PLAN, (200, 150)))
    timeline = make_timeline(*slide(sure, footage(path), None), CLASSES, RULES)
    write_overlay(tmp_path / "o.mp4", timeline, footage(path))
    pictures = [p for _, p in footage(tmp_path / "o.mp4")]
    assert len(pictures) == 175 and pictures[0].shape == (150, 200, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "o.mp4"]
    assert pictures[20][75, 100, 0] > 200 and pictures[20][:12].max(axis=2).min() < 200


class Paced:
    """Footage that comes as a camera's does: a picture every 1/rate seconds."""

    source = VideoSource("camera 0", "camera")
    rate = 100.0

    def __init__(self, pictures):
        self.pictures = pictures

    def __iter__(self):
        import time

        start = time.monotonic()
        for number, picture in enumerate(self.pictures):
            time.sleep(max(0, start + number / self.rate - time.monotonic()))
            yield number / self.rate, picture


def test_a_live_source_is_answered_with_its_newest_frames(sure, monkeypatch):
    monkeypatch.setattr("engine.applying.live.EVERY", 0.3)
    answers = list(watch(sure, Paced(coloured([(0, 100), (1, 100), (2, 100)]))))
    labels = [int(a.probabilities.argmax()) for a in answers]
    assert len(answers) >= 3 and labels == sorted(labels) and labels[-1] == 2
    assert sum(a.dropped for a in answers) > 0
    assert all(a.lag < 5 for a in answers)


def test_a_slow_network_drops_frames_and_does_not_fall_behind(sure, monkeypatch):
    import time

    from engine.applying.predictor import Predictor

    monkeypatch.setattr("engine.applying.live.EVERY", 0.05)
    scores = Predictor.scores

    def slow(self, frames, name):
        time.sleep(0.5)
        return scores(self, frames, name)

    monkeypatch.setattr(Predictor, "scores", slow)
    answers = list(watch(sure, Paced(coloured([(0, 150), (1, 150)]))))
    for answer in answers:  # each speaks of a time no longer ago than one classification
        assert answer.lag < 5
    assert sum(a.dropped for a in answers) >= 50
