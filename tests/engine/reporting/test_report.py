"""Whole reports: what the file holds, its size, videos from every source, hostile names."""

import json
import re
import shutil

import numpy as np
import pytest

from datasets import DataError
from engine.config import ReportConfig
from engine.metrics import fuse
from engine.plots import flow_colours
from engine.reporting.media import FRAMES, FULL_FLOW
from engine.reporting.write import make_report
from scripts import report
from tests.conftest import ROOT, SHARED, needs_videos, run_script
from tests.engine.reporting.score_files import CLASSES, HOSTILE, logits, write_test

RGB, FLOW = "rgb_tiny3D16f", "flow_tiny3D16f"


def data_of(page: str) -> dict:
    """What a report's script reads."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_of_tiny(tiny, tmp_path, **more):
    """Scores of the tiny dataset's test videos, the last of them wrong."""
    lines = (tiny.lists / "val_rgb_split1.txt").read_text().splitlines()
    videos = [line.rsplit(" ", 2)[0] for line in lines]
    labels = [int(line[-1]) for line in lines]
    answers = [(label, 0.6 + 0.04 * n) for n, label in enumerate(labels)]
    answers[-1] = (0, 0.9)
    where = {"settings": str(tiny.settings), "frames": str(tiny.frames)}
    more = {"classes": ["left", "middle", "right"], "videos": videos} | where | more
    return write_test(tmp_path, RGB, logits(answers), labels, **more)


test_of_tiny.__test__ = False


def test_a_report_is_one_file_that_loads_nothing(tiny, tmp_path):
    path = test_of_tiny(tiny, tmp_path, command="python x.py --a 'b c'", data={"tested on": "D"})
    output = make_report(ReportConfig(), [path])
    assert output == path.with_suffix(".html") and not list(tmp_path.glob("*.tmp"))
    page = output.read_text()
    assert "88.9" in page and "python x.py --a &#39;b c&#39;" in page and ">D<" in page
    assert "Content-Security-Policy" in page and "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page) and not re.search("https?:", page)
    images = data_of(page)["sets"][0]["images"]
    assert all(uri.startswith("data:image/webp;base64,") for uri, _ in images)
    # 36, 17 and 2 frames
    assert [frames for _, frames in images] == [FRAMES, FRAMES, 2] * 3
    assert 'type="application/json" id="sizes">[[160, 120]]<' in page


def test_the_size_bounds_the_pictures_and_the_worst_are_first(tiny, tmp_path):
    path = test_of_tiny(tiny, tmp_path)
    bare = len(make_report(ReportConfig(frames=tmp_path), [path]).read_bytes())
    whole = len(make_report(ReportConfig(), [path]).read_bytes())
    most = (bare + (whole - bare) / 2) / 1e6
    page = make_report(ReportConfig(max_mb=most), [path]).read_bytes()
    assert len(page) <= 1e6 * most
    images = data_of(page.decode())["sets"][0]["images"]
    assert images[-1] is not None and images.count(None) > 0
    assert "the file is full (--max-mb)" in page.decode()


def test_videos_that_are_not_there_are_left_out_and_said(tiny, tmp_path):
    gone = test_of_tiny(tiny, tmp_path, frames=str(tmp_path / "gone"))
    page = make_report(ReportConfig(), [gone]).read_text()
    assert "no pictures: no frames of &#39;toy&#39;" in page and "webp" not in page
    gone.with_suffix(".json").unlink()
    page = make_report(ReportConfig(), [gone]).read_text()
    assert "give --dataset" in page and "no JSON beside the score file" in page
    # a dataset that leads elsewhere
    path = test_of_tiny(tiny, tmp_path, dataset="../toy")
    page = make_report(ReportConfig(), [path]).read_text()
    assert "it must be a plain name" in page and "webp" not in page
    path.with_suffix(".json").unlink()
    # said by flags
    config = ReportConfig(tiny.name, tiny.settings, tiny.frames)
    assert "webp" in make_report(config, [gone]).read_text()


def test_a_broken_image_costs_one_video_its_picture(tiny, tmp_path):
    frames = shutil.copytree(tiny.frames, tmp_path / "frames")
    (frames / "val (#0) [0]" / "img_00001.jpg").write_bytes(b"\xff\xd8\xff")
    path = test_of_tiny(tiny, tmp_path, frames=str(frames))
    page = make_report(ReportConfig(), [path]).read_text()
    images = data_of(page)["sets"][0]["images"]
    assert images[0] is None and None not in images[1:]
    assert "1 videos have no picture" in page and "img_00001.jpg" in page


def test_flow_is_shown_where_there_is_no_rgb(tiny, tmp_path):
    lists = tmp_path / "settings" / "toy"
    lists.mkdir(parents=True)
    for name in ("val_flow_split1.txt", "classes.txt"):
        shutil.copy(tiny.lists / name, lists)
    path = test_of_tiny(tiny, tmp_path, settings=str(tmp_path / "settings"))
    assert "webp" in make_report(ReportConfig(), [path]).read_text()
    flow = np.full((1, 3, 2), 128, np.uint8)
    flow[0, 1, 0], flow[0, 2, 1] = 160, 160  # to the right, down
    still, right, down = flow_colours(flow, FULL_FLOW)[0].tolist()
    assert min(still) > 240 and right[0] > right[1] and down[1] > down[0]


@needs_videos
def test_video_files_are_shown(tmp_path):
    folder, videos = (
        tmp_path / "videos",
        sorted((SHARED / "data" / "ut_interaction").glob("**/*.avi")),
    )
    videos = videos or sorted((SHARED / "data" / "ut_interaction").glob("**/*.mp4"))
    folder.mkdir()
    (tmp_path / "toy").mkdir()
    shutil.copy(videos[0], folder / f"one{videos[0].suffix}")
    (tmp_path / "toy" / "val_rgb_split1.txt").write_text("one 40 0\n")
    (tmp_path / "toy" / "classes.txt").write_text("\n".join(CLASSES))
    where = {"settings": str(tmp_path), "frames": str(folder)}
    path = write_test(tmp_path, RGB, logits([(0, 0.9)]), [0], videos=["one"], **where)
    page = make_report(ReportConfig(), [path]).read_text()
    assert data_of(page)["sets"][0]["images"][0][1] == FRAMES


def test_hostile_names_are_text_everywhere(tmp_path):
    labels = [0, 1, 2, 1]
    streams = {
        RGB: logits([(0, 0.9), (2, 0.8), (1, 0.6), (1, 0.7)]),
        FLOW: logits([(1, 0.9), (1, 0.8), (2, 0.6), (1, 0.7)]),
    }
    evil = "</script><script>alert(1)</script>"
    path = write_test(
        tmp_path,
        f"{RGB}+{FLOW}",
        fuse([*streams.values()]),
        labels,
        streams=streams,
        command=f"python {evil}",
        data={evil: evil},
        versions={evil: evil},
        checkpoint=evil,
    )
    page = make_report(ReportConfig(), [path]).read_text()
    assert evil not in page and HOSTILE not in page and "<b>'" not in page
    assert page.count("<script") == 3  # data, sizes, the page's own
    assert "{{ 7 * 7 }}" in page and "&lt;script&gt;alert(&#34;x&#34;)" in page
    assert data_of(page)["sets"][0]["classes"] == list(CLASSES)


def test_extremes_and_videos_without_scores(tmp_path):
    scores = np.array([[3e38, -3e38, 0], [np.nan] * 3, [0, 0, 0], [1e-38, 0, 0]], np.float32)
    unscored = {"unscored": {"video 1 'a' & <b>": "the file <is> broken"}}
    path = write_test(tmp_path, RGB, scores, [0, 1, 2, 0], **unscored)
    page = make_report(ReportConfig(), [path]).read_text()
    (test,) = data_of(page)["tests"]
    assert test["predicted"][1] == -1 and test["top"][1] == [] and test["label"][1] is None
    assert "NaN" not in page.partition('id="data">')[2].partition("</script>")[0]
    assert list(test["reasons"].values()) == ["the file <is> broken"]
    assert "(1 not scored)" in page
    nothing = write_test(tmp_path, "none", np.full((2, 3), np.nan, np.float32), [0, 1])
    assert "No video is scored." in make_report(ReportConfig(), [nothing]).read_text()


def test_many_classes_show_those_with_errors(tmp_path):
    labels = list(range(100))
    answers = [(label, 0.5) for label in labels]
    answers[90] = (91, 0.9)
    path = write_test(
        tmp_path, RGB, logits(answers, 100), labels, classes=[f"c{n}" for n in labels]
    )
    page = make_report(ReportConfig(), [path]).read_text()
    assert "the 60 of 100 classes with most errors" in page
    assert 'aria-label="1 videos of c90, predicted c91"' in page


def test_splits_have_their_mean(tmp_path):
    paths = []
    for split in (1, 2, 3):
        answers = [(label, 0.6) for label in (0, 1, 2, split - 1)]
        (folder := tmp_path / str(split)).mkdir()
        path = write_test(folder, RGB, logits(answers), [0, 1, 2, 0], split=split)
        paths.append(path)
    page = make_report(ReportConfig(), paths).read_text()
    assert "RGB, split 3" in page and "mean of 3 splits" in page and "83.3</b> ± 14.4" in page


def test_the_earlier_file_has_a_report_and_a_bad_one_is_named(tmp_path, capsys):
    output = tmp_path / "deep" / "r.html"
    earlier = ROOT / "tests/earlier_files/scores/toy.npz"
    assert report.main([str(earlier), "--output", str(output)]) == 0
    assert "33.3" in output.read_text() and str(output) in capsys.readouterr().out
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"bad\.npz: not a readable score file"):
        report.main([str(earlier), str(bad)])
    with pytest.raises(DataError, match=r"toy\.npz is given twice"):
        report.main([str(earlier), str(earlier)])
    process = run_script("scripts/report.py", bad, check=False)
    assert process.returncode == 1 and "bad.npz" in process.stderr
    assert "Traceback" not in process.stderr and not bad.with_suffix(".html").exists()
