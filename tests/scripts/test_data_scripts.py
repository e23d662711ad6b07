"""Preparing videos, official split files and the built-in dataset."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from datasets import create_dataset
from datasets.files import DataError
from datasets.flow import raft as flow_raft
from datasets.flow.engines import create_flow, encode_flow
from engine import UsageError
from scripts.data import doctor, make_lists, make_motions, prepare_videos
from tests.conftest import ROOT, SHARED, needs_videos

SIZE = ["--width", "48", "--height", "32", "--workers", "2"]


def write_video(path: Path, frames: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng((frames, seed)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.roll(noise, number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())


@pytest.fixture
def videos(tmp_path) -> Path:
    root = tmp_path / "videos"
    for class_name in ("hug", "kick it"):
        for part in (1, 2):
            for number in range(2):
                write_video(root / class_name / f"set{part}_{number} (#).avi", 5 + number)
    (root / "kick it" / "notes.txt").write_text("no video")
    return root


def prepare(videos, tmp_path, *flags) -> tuple[int, list[str]]:
    printed: list[str] = []
    argv = [str(videos), "--dataset", "toy", *SIZE, *map(str, flags)]
    argv += ["--frames", str(tmp_path / "frames"), "--settings", str(tmp_path / "settings")]
    return prepare_videos.main(argv, printed.append), printed


def lines_of(tmp_path, name: str) -> list[str]:
    return (tmp_path / "settings" / "toy" / name).read_text().splitlines()


PATTERNS = ("--train", "set1_*", "--val", "set2_*")


def test_class_folders_and_patterns(videos, tmp_path):
    code, printed = prepare(videos, tmp_path, *PATTERNS)
    assert code == 0 and len(printed) == 1 and "4 for training, 4 for testing" in printed[0]
    assert lines_of(tmp_path, "classes.txt") == ["hug", "kick it"]
    assert lines_of(tmp_path, "train_rgb_split1.txt") == [
        "hug/set1_0 (#) 5 0",
        "hug/set1_1 (#) 6 0",
        "kick it/set1_0 (#) 5 1",
        "kick it/set1_1 (#) 6 1",
    ]
    assert lines_of(tmp_path, "val_flow_split1.txt")[3] == "kick it/set2_1 (#) 5 1"
    for modality in ("rgb", "flow"):
        split = create_dataset("toy", 1, modality, tmp_path / "settings", tmp_path / "frames")
        assert len(split.train) == len(split.val) == 4
    record = json.loads((tmp_path / "frames" / "preparation.json").read_text())
    settings = {"width": 48, "height": 32, "quality": 95, "flow": "dis", "bound": 20.0}
    facts = {"fps": 10.0, "decoded": "64x48", "videos": 8}
    counts = {"other_fps": 0, "changing": 0, "turned": 0, "short": 8}
    assert record == settings | facts | counts
    image = cv2.imread(str(tmp_path / "frames/hug/set1_0 (#)/img_00001.jpg"))
    assert image.shape == (32, 48, 3)


def test_finished_videos_are_skipped_and_broken_ones_redone(videos, tmp_path):
    prepare(videos, tmp_path, *PATTERNS)
    folder = tmp_path / "frames" / "hug"
    (folder / "set1_0 (#)" / "flow_x_00002.jpg").unlink()
    shutil.rmtree(folder / "set2_0 (#)")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").rglob("*.jpg")}
    assert prepare(videos, tmp_path, "--split", 2, "--train", "set2_*", "--val", "set1_*")[0] == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").rglob("*.jpg")}
    changed = {path.parent.name for path in after if after[path] != before.get(path)}
    assert changed == {"set1_0 (#)", "set2_0 (#)"}
    assert lines_of(tmp_path, "train_rgb_split2.txt") == lines_of(tmp_path, "val_rgb_split1.txt")


def test_other_flags_on_the_same_frames_are_refused(videos, tmp_path):
    prepare(videos, tmp_path, *PATTERNS)
    with pytest.raises(DataError, match="bound 20.0.*bound 15.0.*another --frames"):
        prepare(videos, tmp_path, *PATTERNS, "--bound", 15)


def test_undecodable_videos_are_reported_and_the_others_kept(videos, tmp_path):
    whole = (videos / "hug/set1_0 (#).avi").read_bytes()
    (videos / "hug/set1_7.avi").write_bytes(whole[:300])
    write_video(videos / "hug/set1_8.avi", 1)
    code, printed = prepare(videos, tmp_path, *PATTERNS)
    assert code == 1
    assert printed[1].startswith("left out: hug/set1_7.avi: decoding failed after frame 0")
    assert printed[2] == ("left out: hug/set1_8.avi: the video has 1 frames; at least 2 are needed")
    assert len(lines_of(tmp_path, "train_rgb_split1.txt")) == 4
    assert not (tmp_path / "frames/hug/set1_7").exists()


def test_broken_videos_are_reported_even_if_none_is_left(videos, tmp_path):
    for path in (videos / "hug").glob("set2_*"):
        path.write_bytes(b"")
    shutil.rmtree(videos / "kick it")
    printed: list[str] = []
    argv = [str(videos), "--dataset", "toy", *SIZE, *PATTERNS]
    argv += ["--frames", str(tmp_path / "frames"), "--settings", str(tmp_path / "settings")]
    with pytest.raises(DataError, match="no usable video is left for the val list"):
        prepare_videos.main(argv, printed.append)
    assert [line.split(":")[1] for line in printed] == [
        " hug/set2_0 (#).avi",
        " hug/set2_1 (#).avi",
    ]


def test_csv(videos, tmp_path):
    table = tmp_path / "videos.csv"
    rows = ["hug/set1_0 (#).avi,embrace,train", "kick it/set1_0 (#).avi,,train"]
    rows += ["hug/set2_0 (#).avi,embrace,val", "hug/set2_1 (#).avi,embrace,"]
    table.write_text("\n".join(["video,class,part", *rows]))
    assert prepare(videos, tmp_path, "--csv", table)[0] == 0
    assert lines_of(tmp_path, "train_rgb_split1.txt") == [
        "embrace/set1_0 (#) 5 0",
        "kick it/set1_0 (#) 5 1",
    ]
    assert lines_of(tmp_path, "val_rgb_split1.txt") == ["embrace/set2_0 (#) 5 0"]
    table.write_text("video,part\nhug/set1_0 (#).avi,test\n")
    with pytest.raises(DataError, match=r"videos.csv:2: part must be train, val or empty"):
        prepare(videos, tmp_path, "--csv", table)
    table.write_text("video\nhug/absent.avi\n")
    with pytest.raises(DataError, match="no video .*absent.avi"):
        prepare(videos, tmp_path, "--csv", table)
    table.write_text("name\nx\n")
    with pytest.raises(DataError, match="column 'video'"):
        prepare(videos, tmp_path, "--csv", table)


def test_random_split_and_mistakes(videos, tmp_path):
    prepare(videos, tmp_path, "--group", r"set(\d)", "--val-share", 0.5)
    groups = [
        {line.split("set")[1][0] for line in lines_of(tmp_path, f"{part}_rgb_split1.txt")}
        for part in ("train", "val")
    ]
    assert sorted(map(sorted, groups)) == [["1"], ["2"]]
    with pytest.raises(DataError, match="go together"):
        prepare(videos, tmp_path, "--train", "set1_*")
    write_video(videos / "hug/set1_0 (#).mp4", 3)
    with pytest.raises(DataError, match="share the frame folder 'hug/set1_0"):
        prepare(videos, tmp_path, *PATTERNS)
    with pytest.raises(DataError, match="no videos in"):
        prepare(tmp_path / "settings", tmp_path, *PATTERNS)


def images_below(folder: Path) -> int:
    """Unlike `rglob`, `os.walk` does not mind folders that are renamed meanwhile."""
    return sum(name.endswith(".jpg") for _, _, files in os.walk(folder) for name in files)


def test_killed_at_any_moment_it_goes_on(videos, tmp_path):
    """SIGKILL, twice; afterwards the frames equal those of an undisturbed preparation."""
    flags = [*SIZE, *PATTERNS, "--dataset", "toy", "--settings", str(tmp_path / "settings")]
    for number in range(20):
        write_video(videos / "hug" / f"set1_more{number}.avi", 40)
    command = [sys.executable, str(ROOT / "scripts/data/prepare_videos.py"), str(videos), *flags]
    frames = tmp_path / "frames"
    for images in (20, 400):
        process = subprocess.Popen([*command, "--frames", frames], start_new_session=True)
        while process.poll() is None and images_below(frames) < images:
            time.sleep(0.01)
        assert process.poll() is None, "finished before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for folder in (frames, tmp_path / "undisturbed"):
        subprocess.run([*command, "--frames", folder], check=True, capture_output=True)
    contents = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}
        for folder in (frames, tmp_path / "undisturbed")
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 20 * (40 + 2 * 39)


def jpegs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_flow_only_adds_flow_and_its_lists(videos, tmp_path):
    engine = "farneback"
    prepare(videos, tmp_path, *PATTERNS, "--flow", "none")
    assert not (tmp_path / "settings/toy/train_flow_split1.txt").exists()
    before = jpegs(tmp_path / "frames")
    code, printed = flow_only(tmp_path, "--flow", engine, "--bound", 10)
    assert code == 0 and len(printed) == 1
    assert "8 videos" in printed[0] and f"flow {engine}, bound 10.0" in printed[0]
    assert "lists in" in printed[0] and "train_flow_split1.txt" in printed[0]
    record = json.loads((tmp_path / "frames" / "preparation.json").read_text())
    assert (record["flow"], record["bound"], record["width"]) == (engine, 10, 48)
    after = jpegs(tmp_path / "frames")
    assert {name: after[name] for name in before} == before
    assert lines_of(tmp_path, "val_flow_split1.txt") == [
        "hug/set2_0 (#) 4 0",
        "hug/set2_1 (#) 5 0",
        "kick it/set2_0 (#) 4 1",
        "kick it/set2_1 (#) 5 1",
    ]
    for video, count in (("hug/set1_0 (#)", 5), ("kick it/set2_1 (#)", 6)):
        assert len([name for name in after if name.startswith(f"{video}/img_")]) == count
        for axis in "xy":
            assert (
                len([name for name in after if name.startswith(f"{video}/flow_{axis}")])
                == count - 1
            )
    split = create_dataset("toy", 1, "flow", tmp_path / "settings", tmp_path / "frames")
    assert len(split.train) == 4
    # What is there stays; what is incomplete is made again, the same.
    (tmp_path / "frames/hug/set1_0 (#)/flow_y_00004.jpg").unlink()
    assert flow_only(tmp_path, "--flow", engine, "--bound", 10)[0] == 0
    assert jpegs(tmp_path / "frames") == after
    with pytest.raises(DataError, match="bound 10.*bound 20"):
        flow_only(tmp_path, "--flow", engine)


def test_flow_only_makes_the_flow_of_engines_in_pytorch(videos, tmp_path):
    prepare(videos, tmp_path, *PATTERNS, "--flow", "none")
    shutil.rmtree(tmp_path / "frames/kick it")
    flags = ("--flow", "tvl1-torch", "--device", "cpu", "--workers", 1)
    code, printed = flow_only(tmp_path, *flags)
    assert code == 1 and "4 videos" in printed[0]
    assert [line.split(":")[1] for line in printed[1:]] == [
        f" kick it/set{part}_{number} (#)" for part in (1, 2) for number in (0, 1)
    ]
    folder = tmp_path / "frames/hug/set1_0 (#)"
    frames = [cv2.imread(str(folder / f"img_{n:05d}.jpg")) for n in range(1, 6)]
    expected = encode_flow(create_flow("tvl1-torch")(np.stack(frames)), 20)[2, 0]
    written = cv2.imread(str(folder / "flow_x_00003.jpg"), cv2.IMREAD_GRAYSCALE)
    assert np.abs(written.astype(int) - expected).mean() < 1  # but for the JPEG


def flow_only(tmp_path, *flags) -> tuple[int, list[str]]:
    printed: list[str] = []
    argv = ["--flow-only", "--dataset", "toy", *map(str, flags)]
    argv += ["--frames", str(tmp_path / "frames"), "--settings", str(tmp_path / "settings")]
    return prepare_videos.main(argv, printed.append), printed


def test_flow_only_on_frames_from_elsewhere(tmp_path):
    """Frames without a record, of various sizes; one video is damaged, one has a single frame."""
    for number, (width, height) in enumerate([(64, 48), (80, 40), (64, 48), (64, 48)]):
        folder = tmp_path / "frames" / f"v{number}"
        folder.mkdir(parents=True)
        for frame in range(1, 2 if number == 3 else 5):
            noise = np.random.default_rng(frame).integers(0, 256, (height, width, 3), np.uint8)
            cv2.imwrite(str(folder / f"img_{frame:05d}.jpg"), noise)
    (tmp_path / "frames/v2/img_00003.jpg").write_bytes(b"")
    code, printed = flow_only(tmp_path)
    assert code == 1 and "no RGB lists in" in printed[0]
    assert printed[1] == ("left out: v2: cannot read img_00003.jpg; extract the frames again")
    assert printed[2] == "left out: v3: the video has 1 frames; at least 2 are needed"
    lists = tmp_path / "settings/toy"
    lists.mkdir(parents=True)
    (lists / "train_rgb_split1.txt").write_text("v1 4 0\nv2 4 1\n")
    (lists / "val_rgb_split1.txt").write_text("v0 4 0\nabsent 9 1\n")
    code, printed = flow_only(tmp_path)
    assert code == 1 and len(printed) == 4
    assert printed[1].startswith("left out: absent: listed, but it has no frames")
    assert lines_of(tmp_path, "train_flow_split1.txt") == ["v1 3 0"]
    assert lines_of(tmp_path, "val_flow_split1.txt") == ["v0 3 0"]
    assert not list((tmp_path / "frames/v2").glob("flow_*"))
    image = cv2.imread(str(tmp_path / "frames/v1/flow_y_00003.jpg"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (40, 80)


def test_an_engine_without_weights_is_refused_before_any_work(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_raft.RAFT.__init__, "__defaults__", ("cpu", tmp_path))

    def unreachable(*args, **kwargs):
        raise flow_raft.URLError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    with pytest.raises(DataError, match="no weights for RAFT.*put it at"):
        prepare(videos, tmp_path, *PATTERNS, "--flow", "raft")
    assert not (tmp_path / "frames").exists() and not (tmp_path / "settings").exists()


def test_flow_of_unknown_origin_is_not_taken_for_ours(videos, tmp_path):
    prepare(videos, tmp_path, *PATTERNS)
    (tmp_path / "frames" / "preparation.json").unlink()
    with pytest.raises(DataError, match="does not say how they were made"):
        flow_only(tmp_path)
    with pytest.raises(UsageError, match="goes without VIDEOS"):
        flow_only(tmp_path, "--width", 30)
    with pytest.raises(UsageError, match="needs an engine"):
        flow_only(tmp_path, "--flow", "none")
    with pytest.raises(UsageError, match="--flow dis has none"):
        flow_only(tmp_path, "--device", "cuda")
    with pytest.raises(DataError, match="no frame folders in"):
        flow_only(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="give VIDEOS"):
        prepare_videos.main(["--dataset", "toy"])


def test_shards_together_do_all_and_the_last_run_writes_the_lists(videos, tmp_path):
    (tmp_path / "whole").mkdir()
    prepare(videos, tmp_path / "whole", *PATTERNS)
    folders = []
    for number in (3, 1, 2):
        code, printed = prepare(videos, tmp_path, *PATTERNS, "--shard", f"{number}/3")
        assert code == 0 and printed[0].startswith(f"shard {number}/3: {3 if number < 3 else 2} of")
        folders.append({path.parent for path in (tmp_path / "frames").rglob("*.jpg")})
    assert [len(done) for done in folders] == [2, 5, 8]
    assert not (tmp_path / "settings").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").rglob("*.jpg")}
    prepare(videos, tmp_path, *PATTERNS)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "frames").rglob("*.jpg")}
    assert jpegs(tmp_path / "frames") == jpegs(tmp_path / "whole/frames")
    for name in ("train_rgb_split1.txt", "val_flow_split1.txt", "classes.txt"):
        assert lines_of(tmp_path, name) == lines_of(tmp_path / "whole", name)


def test_a_shard_leaves_the_work_in_progress_of_others_alone(videos, tmp_path):
    other = tmp_path / "frames/.unfinished/hug/set2_1 (#)/img_00001.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    prepare(videos, tmp_path, *PATTERNS, "--shard", "1/4")
    assert other.exists()
    prepare(videos, tmp_path, *PATTERNS)
    assert not (tmp_path / "frames/.unfinished").exists()
    for wrong in ("0/2", "3/2", "2", "a/b"):
        with pytest.raises(SystemExit):
            prepare(videos, tmp_path, "--shard", wrong)


def test_flow_only_in_shards(videos, tmp_path):
    prepare(videos, tmp_path, *PATTERNS, "--flow", "none")
    for number in (1, 2):
        code, printed = flow_only(tmp_path, "--shard", f"{number}/2")
        assert code == 0 and printed[0].startswith(f"shard {number}/2: 4 of 8 videos")
    assert not (tmp_path / "settings/toy/train_flow_split1.txt").exists()
    assert flow_only(tmp_path)[0] == 0
    assert len(lines_of(tmp_path, "train_flow_split1.txt")) == 4


@needs_videos
def test_a_damaged_real_video_is_left_out(tmp_path):
    for name in ("corrupted.mp4", "flip_pancake.mkv"):
        for part in ("set1_", "set2_"):
            target = tmp_path / "videos" / name.split(".")[0] / f"{part}{name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SHARED / "data" / "clips" / name, target)
    code, printed = prepare(tmp_path / "videos", tmp_path, *PATTERNS, "--flow", "none")
    assert code == 1
    assert "corrupted/set1_corrupted.mp4: decoding failed after frame 28" in printed[1]
    assert lines_of(tmp_path, "train_rgb_split1.txt") == ["flip_pancake/set1_flip_pancake 310 1"]


def add_frames(root: Path, folder: str, rgb: int, flow: int, suffix: str) -> None:
    path = root / folder
    path.mkdir(parents=True)
    for pattern, count in (("img_{:05d}.jpg", rgb), (f"flow_x_{{:05d}}{suffix}", flow)):
        for number in range(1, count + 1):
            (path / pattern.format(number)).write_bytes(b"")
    for number in range(1, flow + 1):
        (path / f"flow_y_{number:05d}{suffix}").write_bytes(b"")


def make(dataset, tmp_path) -> int:
    argv = [dataset, str(tmp_path / "official"), "--frames", str(tmp_path / "frames")]
    return make_lists.main([*argv, "--settings", str(tmp_path / "settings")])


def test_hmdb51_lists(tmp_path, capsys):
    official = tmp_path / "official"
    official.mkdir()
    for split, marks in ((1, "120"), (2, "211")):
        for class_name in ("brush_hair", "wave"):
            lines = [f"{class_name} #{i} (1).avi {mark} \n" for i, mark in enumerate(marks)]
            (official / f"{class_name}_test_split{split}.txt").write_text("".join(lines))
    for class_name in ("brush_hair", "wave"):
        for i in range(3):
            folder = f"wave/wave #{i} (1)" if class_name == "wave" else f"{class_name} #{i} (1)"
            add_frames(tmp_path / "frames", folder, 10 + i, 9 + i, "")
    assert make("hmdb51", tmp_path) == 0
    lists = tmp_path / "settings" / "hmdb51"
    assert (lists / "train_rgb_split1.txt").read_text() == (
        "brush_hair #0 (1) 10 0\nwave/wave #0 (1) 10 1\n"
    )
    assert (lists / "val_flow_split1.txt").read_text() == (
        "brush_hair #1 (1) 10 0\nwave/wave #1 (1) 10 1\n"
    )
    assert len((lists / "train_rgb_split2.txt").read_text().splitlines()) == 4
    assert (lists / "classes.txt").read_text() == "brush_hair\nwave\n"
    shutil.rmtree(tmp_path / "frames" / "brush_hair #0 (1)")
    (tmp_path / "frames" / "wave" / "wave #0 (1)" / "flow_y_00001").unlink()
    capsys.readouterr()
    assert make("hmdb51", tmp_path) == 1
    printed = capsys.readouterr().out
    assert "missing: 2 of 6 videos" in printed
    assert "brush_hair  brush_hair #0 (1)  no frame folder" in printed
    assert "wave #0 (1)        no flow" in printed
    assert (lists / "train_rgb_split1.txt").read_text() == "wave/wave #0 (1) 10 1\n"


def test_ucf101_lists(tmp_path):
    official = tmp_path / "official"
    official.mkdir()
    (official / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n")
    for split in (1, 2, 3):
        (official / f"trainlist0{split}.txt").write_text(
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nYoYo/v_YoYo_g01_c01.avi 2\r\n"
        )
        (official / f"testlist0{split}.txt").write_text("YoYo/v_YoYo_g25_c01.avi\r\n")
    for name in ("v_ApplyEyeMakeup_g08_c01", "v_YoYo_g01_c01", "v_YoYo_g25_c01"):
        add_frames(tmp_path / "frames", name, 7, 6, ".jpg")
    assert make("ucf101", tmp_path) == 0
    lists = tmp_path / "settings" / "ucf101"
    assert len(list(lists.glob("*_split?.txt"))) == 12
    assert (lists / "train_flow_split3.txt").read_text() == (
        "v_ApplyEyeMakeup_g08_c01 6 0\nv_YoYo_g01_c01 6 1\n"
    )
    assert (lists / "val_rgb_split2.txt").read_text() == "v_YoYo_g25_c01 7 1\n"
    (official / "testlist01.txt").write_text("Unknown/v.avi\n")
    with pytest.raises(DataError, match=r"testlist01.txt:1: expected 'Class/video.avi"):
        make("ucf101", tmp_path)


def motions(tmp_path, name, *flags) -> Path:
    argv = ["--train", "1", "--val", "1", "--frames", str(tmp_path / name), *flags]
    assert make_motions.main([*argv, "--settings", str(tmp_path / "settings")]) == 0
    return tmp_path / name


def test_motions_are_a_function_of_the_seed(tmp_path):
    first, again = motions(tmp_path, "a"), motions(tmp_path, "b")
    other = motions(tmp_path, "c", "--seed", "1")
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.jpg"))
    assert names == sorted(str(path.relative_to(again)) for path in again.rglob("*.jpg"))
    assert all((first / n).read_bytes() == (again / n).read_bytes() for n in names)
    image = "grow/train_000/img_00001.jpg"
    assert (first / image).read_bytes() != (other / image).read_bytes()
    split = create_dataset("motions", 1, "flow", tmp_path / "settings", first)
    assert len(split.class_names) == 8 and not split.may_flip


def test_motions_differ_in_motion_and_order_alone():
    rng = np.random.default_rng
    for forwards, backwards in (("left_to_right", "right_to_left"), ("grow", "shrink")):
        a = make_motions.trajectory(make_motions.MOTION_CLASSES.index(forwards), 16, rng(0))
        b = make_motions.trajectory(make_motions.MOTION_CLASSES.index(backwards), 16, rng(0))
        values = [[(p.x, p.y, p.scale) for p in path] for path in (a, b[::-1])]
        np.testing.assert_allclose(*values)
    up = np.array([p.y for p in make_motions.trajectory(6, 16, rng(0))])
    down = np.array([p.y for p in make_motions.trajectory(7, 16, rng(0))])
    assert np.argmin(up) in range(4, 12) and up[0] == up[-1] == up.max()
    # Both show the same places for the same time, and the same moves; only the order differs.
    np.testing.assert_allclose(np.sort(up - up.mean()), np.sort(down - down.mean()))
    np.testing.assert_allclose(np.sort(np.diff(up)), np.sort(np.diff(down)), atol=1e-9)
    moving = np.flatnonzero(np.diff(up))
    assert max(np.diff(moving)) > 5  # longer than a token's five frames


def write_hmdb51(root: Path) -> tuple[Path, Path]:
    """The unpacked archives: a folder a class, and `<class>_test_split<k>.txt` with 0, 1 or 2."""
    videos, splits = root / "hmdb51_org", root / "testTrainMulti_7030_splits"
    splits.mkdir(parents=True)
    for number in range(51):
        name = f"class_{number:02d}"
        clips = [
            f"April_09_{name}_u_nm_np1_ba_goo_0.avi",
            f"#4_How_To_[NEW]_(1)!!_{name}_f_cm_np1_le_med_{number}.avi",
            f"left_out_{name}_h_nm_np2_fr_bad_3.avi",
        ]
        for place, clip in enumerate(clips):
            write_video(videos / name / clip, 6, 3 * number + place)
        for split in (1, 2, 3):
            marks = ("1", "2", "0") if split != 2 else ("2", "1", "0")
            lines = [f"{clip} {mark} " for clip, mark in zip(clips, marks, strict=True)]
            (splits / f"{name}_test_split{split}.txt").write_text("\n".join(lines) + "\n")
    return videos, splits


def write_ucf101(root: Path) -> tuple[Path, Path]:
    """The unpacked archives: UCF-101/<Class>/v_<Class>_g01_c01.avi, and lists of such paths."""
    videos, splits = root / "UCF-101", root / "ucfTrainTestlist"
    splits.mkdir(parents=True)
    names = ["HandstandPushups", *(f"Class{number:03d}" for number in range(100))]
    lists: dict[str, list[str]] = {}
    for number, name in enumerate(names, 1):
        # In the archive, this one class's files are spelled otherwise than its folder.
        spelled = name.replace("Handstand", "HandStand")
        for group in (1, 8):
            clip = f"{name}/v_{spelled}_g{group:02d}_c01.avi"
            write_video(videos / clip, 6, 10 * number + group)
            for split in (1, 2, 3):
                tests = group == (1 if split == 1 else 8)
                line = clip if tests else f"{clip} {number}"
                lists.setdefault(f"{'test' if tests else 'train'}list0{split}", []).append(line)
    for name, lines in lists.items():
        (splits / f"{name}.txt").write_text("\n".join(lines) + "\n")
    index = "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))
    (splits / "classInd.txt").write_text(index)
    return videos, splits


@pytest.mark.parametrize(
    ("dataset", "write", "kinds"),
    [
        ("hmdb51", write_hmdb51, {("info", "not-listed"), ("warning", "published-list")}),
        ("ucf101", write_ucf101, set()),
    ],
)
def test_from_the_official_archives_to_a_clean_report(tmp_path, dataset, write, kinds):
    videos, splits = write(tmp_path)
    places = ["--frames", str(tmp_path / "frames"), "--settings", str(tmp_path / "settings")]
    printed: list[str] = []
    prepare = [str(videos), "--dataset", dataset, "--no-lists", *SIZE, *places]
    assert prepare_videos.main(prepare, printed.append) == 0
    assert "lists" not in printed[0] and not (tmp_path / "settings").exists()
    assert make_lists.main([dataset, str(splits), *places]) == 0
    lists = tmp_path / "settings" / dataset
    assert len(list(lists.glob("*_split*.txt"))) == 12
    for split in (1, 2, 3):
        for modality in ("rgb", "flow"):
            opened = create_dataset(dataset, split, modality, lists.parent, tmp_path / "frames")
            assert len(opened.train) == len(opened.val) == len(opened.class_names)
    report = tmp_path / "report.json"
    arguments = ["-d", dataset, *places, "--json", str(report)]
    assert doctor.main(arguments, printed.append) == 0
    findings = json.loads(report.read_text())["findings"]
    short = {("warning", "short")}  # all are: a few frames each
    assert {(f["severity"], f["kind"]) for f in findings} == kinds | short
