"""Names and files that try to lead a preparation out of its folders, or to end it."""

import os
import shutil
import socket
from pathlib import Path

import lmdb
import pytest

from datasets.files import DataError
from datasets.prepare import extract as extracting
from scripts.data import doctor, make_lists, make_motions, pack_frames, prepare_videos
from tests.conftest import TinyDataset
from tests.scripts.test_data_scripts import PATTERNS, flow_only, lines_of, prepare, write_video

NO_FLOW = (*PATTERNS, "--flow", "none")


@pytest.fixture
def videos(tmp_path) -> Path:
    for class_name in ("hug", "kick"):
        for part in (1, 2):
            write_video(tmp_path / "videos" / class_name / f"set{part}_0.mp4", 3)
    return tmp_path / "videos"


@pytest.fixture
def precious(tmp_path) -> Path:
    """A folder that is none of the preparation's, with frames and other files."""
    for name in ("set1_0/img_00001.jpg", "set1_0/notes.txt", "img_00001.jpg", "thesis.tex"):
        (tmp_path / "precious" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "precious" / name).write_text(name)
    return tmp_path / "precious"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


HOSTILE_CLASSES = ("../precious", "..", "...", ".", "a/b", "a\0b", "x\x1b[31m", "x" * 256)


@pytest.mark.parametrize("name", [*HOSTILE_CLASSES, "{tmp}/precious", ".Unfinished"])
def test_a_class_of_a_csv_cannot_leave_the_frames(videos, precious, tmp_path, name):
    before = contents(tmp_path)
    table = tmp_path / "videos.csv"
    name = name.format(tmp=tmp_path)
    table.write_text(f"video,class,part\nhug/set1_0.mp4,{name},train\nhug/set2_0.mp4,hug,val\n")
    with pytest.raises(DataError, match=r"videos.csv:2: the class .*rename it"):
        prepare(videos, tmp_path, "--csv", table)
    table.unlink()
    assert contents(tmp_path) == before and not (tmp_path / "frames").exists()


def test_videos_whose_names_are_refused_are_left_out(videos, tmp_path):
    write_video(videos / "hug" / "set1_x.mp4", 3)
    prepare(videos, tmp_path, *NO_FLOW)
    before = contents(tmp_path / "frames")
    for name in ("..mp4", "...mp4", "set1_\n.mp4", "set1_\x1b[2J.mp4", "set1_ .mp4", " set1_.mp4"):
        shutil.copy(videos / "hug/set1_x.mp4", videos / "hug" / name)
    latin = os.fsencode(videos / "hug") + b"/set1_\xe4.mp4"
    shutil.copy(videos / "hug/set1_x.mp4", latin)
    code, printed = prepare(videos, tmp_path, *NO_FLOW)
    assert code == 1 and "5 videos" in printed[0]
    assert len(printed) == 8 and all("rename it" in line for line in printed[1:])
    assert not any(c in line for line in printed for c in "\n\x1b\udce4")
    assert contents(tmp_path / "frames") == before
    assert len(lines_of(tmp_path, "train_rgb_split1.txt")) == 3


@pytest.mark.parametrize("name", ["hug\n", "x\x1b[31m", "hug ", ".unfinished", "preparation.json"])
def test_class_folders_with_such_names_end_it_before_any_work(videos, tmp_path, name):
    write_video(videos / name / "v.mp4", 3)
    with pytest.raises(DataError, match="the class .*rename it"):
        prepare(videos, tmp_path, *NO_FLOW)
    assert not (tmp_path / "frames").exists()


def test_csv_videos_outside_their_folder_are_left_out(videos, tmp_path):
    write_video(tmp_path / "outside.mp4", 3)
    table = tmp_path / "videos.csv"
    rows = ["../outside.mp4,hug,train", f"{tmp_path}/outside.mp4,hug,train", "hug,hug,train"]
    rows += [f"{'9' * 5000},hug,train", "./hug//set1_0.mp4,hug,train", "hug/set2_0.mp4,hug,val"]
    table.write_text("\n".join(["\ufeffvideo,class,part", *rows]))
    code, printed = prepare(videos, tmp_path, "--csv", table, "--flow", "none")
    assert code == 1 and len(printed) == 5
    assert lines_of(tmp_path, "train_rgb_split1.txt") == ["hug/set1_0 3 0"]


@pytest.mark.parametrize("flow", ["none", "farneback"])
def test_what_is_no_regular_file_is_left_out(videos, tmp_path, flow):
    folder = videos / "hug"
    os.mkfifo(folder / "set1_fifo.mp4")
    (folder / "set1_loop.mp4").symlink_to("set1_loop.mp4")
    (folder / "set1_dangling.mp4").symlink_to("none")
    (folder / "set1_folder.mp4").mkdir()
    (folder / "set1_device.mp4").symlink_to("/dev/zero")
    (folder / "set1_linked.mp4").symlink_to("set1_0.mp4")
    (videos / "loop").symlink_to("loop")
    os.mkfifo(videos / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "set1_socket.mp4"))
        code, printed = prepare(videos, tmp_path, *PATTERNS, "--flow", flow)
    assert code == 1 and len(printed) == 7
    for line, why in zip(
        printed[1:],
        ("leads to no file", "a device", "a pipe", "a folder", "symbolic", "a socket"),
        strict=True,
    ):
        assert line.startswith("left out: hug/set1_") and why in line
    assert lines_of(tmp_path, "train_rgb_split1.txt")[:2] == [
        "hug/set1_0 3 0",
        "hug/set1_linked 3 0",
    ]


def test_a_csv_and_classes_that_are_no_files_are_refused(videos, tmp_path):
    (tmp_path / "settings/toy").mkdir(parents=True)
    for make in (os.mkfifo, os.mkdir, lambda p: os.symlink("none", p), lambda p: os.symlink(p, p)):
        for place in (tmp_path / "videos.csv", tmp_path / "settings/toy/classes.txt"):
            make(place)
            flags = ("--csv", place) if place.suffix == ".csv" else PATTERNS
            with pytest.raises(DataError, match="not a file|link"):
                prepare(videos, tmp_path, *flags)
            place.rmdir() if place.is_dir() else place.unlink()


def test_links_in_the_frames_lead_nothing_out(videos, precious, tmp_path):
    prepare(videos, tmp_path, *NO_FLOW)
    frames, before = tmp_path / "frames", contents(precious)
    links = ("hug", "hug/set1_0", ".unfinished", ".unfinished/hug", ".unfinished/hug/set1_0")
    for link in links:
        shutil.rmtree(frames / "hug", ignore_errors=True)
        (frames / link).parent.mkdir(parents=True, exist_ok=True)
        (frames / link).symlink_to(precious)
        code, printed = prepare(videos, tmp_path, *NO_FLOW)
        assert code == 1 and f"{frames / link} is a link" in printed[1]
        assert contents(precious) == before, link
        (frames / link).unlink()
        if link.startswith(".unfinished/"):
            shutil.rmtree(frames / ".unfinished")
    assert prepare(videos, tmp_path, *NO_FLOW)[0] == 0


def test_class_folders_that_are_not_utf8_end_it_before_any_work(videos, tmp_path):
    (videos / "kick").rename(Path(os.fsdecode(os.fsencode(videos) + b"/kick\xe4")))
    with pytest.raises(DataError, match="the class .*not UTF-8; rename it"):
        prepare(videos, tmp_path, *NO_FLOW)
    assert not (tmp_path / "frames").exists()


def test_links_among_the_videos_are_read_and_stay(videos, tmp_path):
    """The folder of a class may lie elsewhere; nothing is written there."""
    (videos / "hug").rename(tmp_path / "elsewhere")
    (videos / "hug").symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    assert prepare(videos, tmp_path, *NO_FLOW)[0] == 0
    assert contents(tmp_path / "elsewhere") == before and (videos / "hug").is_symlink()
    assert lines_of(tmp_path, "train_rgb_split1.txt")[0] == "hug/set1_0 3 0"


def test_links_in_place_of_files_that_are_written_are_replaced(videos, precious, tmp_path):
    before = contents(precious)
    (tmp_path / "settings/toy").mkdir(parents=True)
    for name in ("train_rgb_split1.txt", "val_rgb_split1.txt"):
        (tmp_path / "settings/toy" / name).symlink_to(precious / "thesis.tex")
    assert prepare(videos, tmp_path, *NO_FLOW)[0] == 0
    record = tmp_path / "frames/preparation.json"
    record.unlink()
    record.symlink_to(precious / "thesis.tex")
    with pytest.raises(DataError, match="cannot read .*preparation.json"):
        prepare(videos, tmp_path, *NO_FLOW)
    assert contents(precious) == before
    assert lines_of(tmp_path, "train_rgb_split1.txt") == ["hug/set1_0 3 0", "kick/set1_0 3 1"]


@pytest.mark.parametrize("link", [".unfinished", ".unfinished/hug", ".unfinished/hug/set1_0"])
def test_adding_flow_follows_no_links(videos, precious, tmp_path, link):
    prepare(videos, tmp_path, *NO_FLOW)
    shutil.rmtree(tmp_path / "settings")
    before = contents(precious)
    (tmp_path / "frames" / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "frames" / link).symlink_to(precious)
    code, printed = flow_only(tmp_path)
    assert code == 1 and contents(precious) == before
    assert any(f"{tmp_path / 'frames' / link} is a link" in line for line in printed)
    (tmp_path / "frames" / link).unlink()
    folder = tmp_path / "frames/hug/set1_0/flow_x_00001.jpg"
    shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
    (folder / "x").mkdir(parents=True)
    code, printed = flow_only(tmp_path)
    assert code == 1 and "flow_x_00001.jpg is a folder" in printed[-1]
    shutil.rmtree(folder)
    assert flow_only(tmp_path)[0] == 0 and contents(precious) == before


def test_rendered_motions_follow_no_links(precious, tmp_path):
    flags = ["--frames", str(tmp_path / "frames"), "--settings", str(tmp_path / "settings")]
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / make_motions.MOTION_CLASSES[0]).symlink_to(precious)
    before = contents(precious)
    with pytest.raises(DataError, match="is a link"):
        make_motions.main([*flags, "--train", "1", "--val", "1"])
    assert contents(precious) == before


def test_folders_with_other_files_are_not_replaced(videos, tmp_path):
    prepare(videos, tmp_path, *PATTERNS)
    folder = tmp_path / "frames/hug/set1_0"
    (folder / "flow_x_00001.jpg").unlink()
    for other in ("notes.txt", "img_00001.jpg.orig", "img_00009.jpg"):
        (folder / other).mkdir() if other == "img_00009.jpg" else (folder / other).touch()
        code, printed = prepare(videos, tmp_path, *PATTERNS)
        assert code == 1 and f"holds '{other}'" in printed[-1]
        assert (folder / other).exists() and (folder / "img_00001.jpg").exists()
        (folder / other).rmdir() if other == "img_00009.jpg" else (folder / other).unlink()
    hidden = tmp_path / "frames/.unfinished/hug/set1_0"
    hidden.mkdir(parents=True)
    (hidden / "notes.txt").touch()
    assert "holds 'notes.txt'" in prepare(videos, tmp_path, *PATTERNS)[1][-1]
    (hidden / "notes.txt").rename(hidden / "img_00001.jpg")
    assert prepare(videos, tmp_path, *PATTERNS)[0] == 0 and not hidden.parent.parent.exists()


def test_frames_of_unrecorded_origin_are_not_replaced(videos, tmp_path):
    prepare(videos, tmp_path, *NO_FLOW)
    (tmp_path / "frames/preparation.json").unlink()
    before = contents(tmp_path / "frames")
    with pytest.raises(DataError, match="holds frames, and no preparation.json says"):
        prepare(videos, tmp_path, *PATTERNS)
    assert contents(tmp_path / "frames") == before


def test_frame_folders_whose_names_are_refused(tmp_path):
    toy = TinyDataset(tmp_path)
    for folder in ("c/v", "c/w\n1", "c /v"):
        toy.add_video(folder, 0, 3)
        for path in (toy.frames / folder).glob("flow_*"):
            path.unlink()
    code, printed = flow_only(tmp_path, "--flow", "dis")
    assert code == 1 and "1 videos" in printed[0] and len(printed) == 3
    assert all("rename it" in line for line in printed[1:])
    lines: list[str] = []
    flags = ["-d", "toy", "--frames", str(toy.frames), "--size", "64x48"]
    assert pack_frames.main([*flags, "--modality", "rgb"], lines.append) == 1
    assert sum("not packed" in line and "rename it" in line for line in lines) == 2
    code = pack_frames.main([*flags, "--modality", "rgb", "--leave-out-bad"], lines.append)
    assert code == 1 and "1 videos, 3 images" in lines[-1]


@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101"])
def test_official_lists_with_such_names_are_refused(tmp_path, dataset):
    official, frames = tmp_path / "official", tmp_path / "frames"
    official.mkdir()
    frames.mkdir()
    flags = [dataset, str(official), "--frames", str(frames), "--settings", str(tmp_path / "s")]
    for class_name, video in (("wave", "..avi"), ("wave", "...avi"), ("..", "v.avi")):
        (official / f"{class_name}_test_split1.txt").write_text(f"{video} 1\n")
        (official / "classInd.txt").write_text(f"1 {class_name}\n")
        (official / "trainlist01.txt").write_text(f"{class_name}/{video} 1\n")
        with pytest.raises(DataError, match="rename it|expected"):
            make_lists.main(flags)
        (official / f"{class_name}_test_split1.txt").unlink()
    for file in ("classInd.txt", "wave_test_split1.txt"):
        (official / file).unlink(missing_ok=True)
        os.mkfifo(official / file)
    with pytest.raises(DataError, match="is a pipe"):
        make_lists.main(flags)
    assert not (tmp_path / "s").exists()


HOSTILE_DATASETS = ("..", ".", "../x", "/abs", "a/b", "a\nb", "x\x1b[31m", " x", "x" * 256, "")


@pytest.mark.parametrize("name", HOSTILE_DATASETS)
def test_no_dataset_name_leads_out(tmp_path, name, capsys):
    scripts = (prepare_videos.main, make_motions.main, pack_frames.main, doctor.main)
    flags = ["--frames", str(tmp_path), "--settings", str(tmp_path)]
    for script in scripts:
        with pytest.raises(SystemExit) as ended:
            script(["--dataset", name, *flags])
        assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        make_lists.main([name, str(tmp_path), *flags])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())


def test_places_are_tried_before_the_work(videos, tmp_path):
    (tmp_path / "settings").touch()
    with pytest.raises(OSError, match="settings"):
        prepare(videos, tmp_path, *NO_FLOW)
    assert not (tmp_path / "frames").exists()
    (tmp_path / "settings").unlink()
    (tmp_path / "frames").touch()
    with pytest.raises(OSError, match="frames"):
        prepare(videos, tmp_path, *NO_FLOW)
    (tmp_path / "frames").unlink()
    (tmp_path / "to").touch()
    toy = TinyDataset(tmp_path)
    toy.add_video("c/v", 0, 3)
    with pytest.raises(OSError, match=str(tmp_path / "to")):
        pack_frames.main(["-d", "toy", "--frames", str(toy.frames), "--to", str(tmp_path / "to")])


def test_a_full_disk_is_said_and_leaves_no_unfinished_folders(videos, tmp_path, monkeypatch):
    def full(path: Path, *args) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extracting, "save_jpeg", full)
    with pytest.raises(OSError, match=f"disk full: '{tmp_path / 'frames' / 'hug'}"):
        prepare(videos, tmp_path, *NO_FLOW, "--workers", 1)
    assert sorted(p.name for p in (tmp_path / "frames").rglob("*")) == ["preparation.json"]


def test_a_full_disk_while_packing_is_said_and_the_lock_is_gone(tmp_path, monkeypatch):
    toy = TinyDataset(tmp_path)
    toy.add_video("c/v", 0, 3)

    def full(*args) -> None:
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr("datasets.prepare.pack.PackWriter.put", full)
    path = toy.frames / "rgb_64x48.lmdb"
    flags = ["-d", "toy", "--frames", str(toy.frames), "--size", "64x48", "--modality", "rgb"]
    with pytest.raises(OSError, match=f"disk full: '{path}'"):
        pack_frames.main(flags)
    assert not list(toy.frames.glob("*.lock")) and not path.exists()
    monkeypatch.undo()
    assert pack_frames.main(flags) == 0 and path.exists()
    assert not list(toy.frames.glob("*.lmdb?*"))
