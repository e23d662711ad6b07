"""A network's files, and the videos: names, weights to fetch, changed frames."""

import json
from pathlib import Path

import pytest

from datasets.prepare.collect import Video
from engine import UsageError
from engine.config import AblationConfig
from engine.quickstart import network
from engine.quickstart.network import DEFAULT, NetworkFiles, Places, in_repository
from engine.quickstart.videos import dataset_name, drop_changed_frames, listing
from models import get_arch
from tests.conftest import ROOT


def files(arch: str, output: Path | None = None, weights: str = "auto") -> NetworkFiles:
    return NetworkFiles(get_arch(arch), Places("mine", 2, output), weights)


@pytest.mark.parametrize(
    ("arch", "head", "backbone"),
    [
        ("rgb_I3D64f_bert2", "bert2", "rgb_I3D64f"),
        ("rgb_I3D64f_bert2_noclass", "bert2_noclass", "rgb_I3D64f"),
        ("rgb_tiny3D16f", "average", "rgb_tiny3D16f"),
    ],
)
def test_names_of_a_network(arch, head, backbone):
    own = files(arch)
    assert (own.head, own.backbone) == (head, backbone)
    assert own.cache == ROOT / f"datasets/mine_tokens/{backbone}_split2"
    assert own.checkpoint == ROOT / f"checkpoint/mine_{arch}_split2/last.pth.tar"
    assert own.on_flow().spec.name == arch.replace("rgb_", "flow_")
    assert own.lists[0].name == "train_rgb_split2.txt"


def test_reduction_blocks_are_refused():
    with pytest.raises(UsageError, match="a frozen backbone without reduction"):
        files("rgb_tiny3D16f_bert10_FRMB").head  # noqa: B018


def test_places_elsewhere_are_flags_and_usual_ones_are_not(tmp_path):
    assert Places("mine", 1).flags(cache=Path("x")) == ("--dataset", "mine", "--split", "1")
    flags = Places("mine", 1, tmp_path).flags(output=tmp_path / "runs")
    assert flags[-2:] == ("--output", str(tmp_path / "runs"))
    assert flags[5] == str(tmp_path / "datasets/mine_frames")
    assert in_repository(ROOT / "a/b") == "a/b" and in_repository(tmp_path) == str(tmp_path)


def test_weights_are_fetched_once_and_for_flow_too(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "WEIGHTS", tmp_path)
    own = files("rgb_I3D64f_bert2")
    assert own.source().name == own.on_flow().source().name == "i3d-rgb-kinetics400"
    assert files("rgb_I3D64f_bert2", weights="none").source() is None
    assert files("rgb_tiny3D16f_bert10").source() is None
    (tmp_path / "i3d-rgb-kinetics400.pt").touch()
    assert own.source() is None


def test_folds_and_the_chosen_setting(tmp_path):
    own = files("rgb_tiny3D16f_bert10", tmp_path)
    assert own.folds(AblationConfig()) == 3 and own.chosen()["lr"] == DEFAULT.lr
    own.lists[0].parent.mkdir(parents=True)
    own.lists[0].write_text("a/set1_1_1_0 20 0\na/set1_2_1_0 20 0\nb/set1_3_2_1 20 1\n")
    assert own.folds(AblationConfig()) == 2  # sequences stay whole
    own.tuning.mkdir(parents=True)
    chosen = {"bert10": {"2": {"chosen": {"lr": 3e-5}}}}
    (own.tuning / "tuning.json").write_text(json.dumps(chosen))
    assert own.chosen() == {"lr": 3e-5}


def test_a_folder_names_a_dataset(tmp_path):
    assert dataset_name(Path("/data/My videos (2)/")) == "my_videos_2"
    with pytest.raises(UsageError, match="give one with --dataset"):
        dataset_name(Path("/"))


def test_frames_of_changed_and_lost_videos_go(tmp_path):
    root, frames = tmp_path / "videos", tmp_path / "frames"
    videos = [Video(f"{c}/{n}.mp4", c, "train") for c in ("hug", "kick") for n in "abc"]
    for video in videos:
        (root / video.path).parent.mkdir(parents=True, exist_ok=True)
        (root / video.path).write_text("1")
        (frames / video.folder).mkdir(parents=True)
        (frames / video.folder / "img_00001.jpg").touch()
    before = listing(root, videos)
    assert drop_changed_frames(frames, before, listing(root, videos)) == []
    (root / "hug/a.mp4").write_text("22")
    now = listing(root, videos[:-1])
    assert drop_changed_frames(frames, before, now) == ["hug/a.mp4", "kick/c.mp4"]
    left = sorted(str(p.relative_to(frames)) for p in frames.glob("*/*"))
    assert left == ["hug/b", "hug/c", "kick/a", "kick/b"]
    # another split of the same videos changes no frames; frames of another folder's are not ours
    test = listing(root, [Video(v.path, v.class_name, "val") for v in videos])
    assert drop_changed_frames(frames, listing(root, videos), test) == []
    assert drop_changed_frames(frames, before | {"root": "/other"}, now) == []
    (frames / "hug/b/mine.txt").touch()
    (root / "hug/b.mp4").write_text("22")
    with pytest.raises(UsageError, match="the frames of hug/b.mp4, which has changed, stay"):
        drop_changed_frames(frames, before, listing(root, videos))
