"""Packs: the folders' clips to the bit, killed and taken up again, damaged and refused."""

import shutil
import signal
import subprocess
import sys
import time

import cv2
import lmdb
import numpy as np
import pytest
import torch

from datasets import create_dataset
from datasets.clips import ClipDataset
from datasets.files import DataError
from datasets.prepare.pack import Packing, pack
from datasets.records import VideoRecord
from datasets.sources.choose import FOLDERS, PACKED, choose_source
from datasets.sources.folders import FrameNames
from datasets.sources.frames import FrameReader
from datasets.sources.packed import PackReader, encode_entry, entry_offsets, is_whole, open_pack
from scripts.data import pack_frames
from tests.conftest import ROOT, TinyDataset
from video_transforms import PLAIN, Compose, MultiScaleCornerCrop, RandomHorizontalFlip

NAMES = FrameNames()
SIZE = (64, 48)  # the toy's own


@pytest.fixture
def toy(tmp_path):
    dataset = TinyDataset(tmp_path)
    dataset.add_video("c/v (#1)", 0, 30)
    dataset.add_video("c/w", 1, 9, flow_suffix="")
    for part in ("train", "val"):
        dataset.write_lists(part, [("c/v (#1)", 30, 0), ("c/w", 9, 1)])
    return dataset


def packing_of(toy, modality="rgb", size=SIZE, quality=95) -> Packing:
    return Packing(toy.frames, NAMES, modality, size, quality, toy.frames)


def make_pack(toy, modality="rgb", size=SIZE):
    about, failures = pack(packing_of(toy, modality, size), 2, False, iter)
    assert not failures
    return about


def split_of(toy, modality="rgb", size=SIZE, source=None):
    return create_dataset(toy.name, 1, modality, toy.settings, toy.frames, size=size, source=source)


@pytest.mark.parametrize("modality", ["rgb", "flow"])
@pytest.mark.parametrize("packed", [SIZE, None])
@pytest.mark.parametrize("read", [SIZE, (32, 24), (85, 64)])
def test_clips_are_the_folders_to_the_bit(toy, modality, packed, read):
    make_pack(toy, modality, packed)
    if packed and read != packed:
        pytest.skip("a pack of another size is not taken")
    splits = [split_of(toy, modality, read, kind) for kind in (FOLDERS, PACKED)]
    assert splits[0].val == splits[1].val  # flow's counts are lowered alike
    readers = [split.source.reader(read) for split in splits]
    for record in splits[0].val:
        numbers = np.array([1, record.count, 3, 3])
        folder, pack_ = (reader.read(record, numbers) for reader in readers)
        assert np.array_equal(folder, pack_) and folder.shape[1:3] == read[::-1]


def test_resized_images_are_what_the_reader_sees_but_for_the_quality(toy):
    for modality in ("rgb", "flow"):
        smooth(toy)
        make_pack(toy, modality, (32, 24))
        record = VideoRecord("c/v (#1)", 29, 0, "l:1")
        folder = FrameReader(toy.frames, NAMES, modality, (32, 24)).read(record, np.arange(1, 9))
        path = packing_of(toy, modality, (32, 24)).path
        packed = PackReader(path, modality, (32, 24)).read(record, np.arange(1, 9))
        assert np.abs(folder.astype(int) - packed).mean() < 1.5


def smooth(toy) -> None:
    """Blurs the toy's noise, which no JPEG keeps."""
    for path in (toy.frames / "c/v (#1)").iterdir():
        image = cv2.GaussianBlur(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (9, 9), 0)
        path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def test_what_is_there_is_chosen_and_can_be_forced(toy):
    assert split_of(toy).source.kind == FOLDERS
    make_pack(toy)
    assert split_of(toy).source.kind == PACKED
    assert "rgb_64x48.lmdb (2 videos" in str(split_of(toy).source)
    assert split_of(toy, source=FOLDERS).source.kind == FOLDERS
    assert split_of(toy, size=(32, 24)).source.kind == FOLDERS
    assert split_of(toy, "flow").source.kind == FOLDERS
    with pytest.raises(DataError, match=r"no pack rgb_32x24.lmdb.*there: rgb_64x48.lmdb"):
        split_of(toy, size=(32, 24), source=PACKED)
    make_pack(toy, size=None)
    assert split_of(toy, size=(32, 24)).source.kind == PACKED


def test_a_pack_needs_no_folders(toy):
    make_pack(toy)
    shutil.rmtree(toy.frames / "c")
    assert split_of(toy).source.kind == PACKED


def test_lists_are_checked_against_the_pack(toy):
    make_pack(toy)
    toy.write_lists("val", [("c/v (#1)", 31, 0)])
    with pytest.raises(
        DataError, match=r"val_rgb_split1.txt:1.* should have 31 rgb images.*has 30"
    ):
        split_of(toy)
    toy.write_lists("val", [("c/absent", 3, 0)])
    with pytest.raises(DataError, match=r"'c/absent' is not in .*rgb_64x48.lmdb"):
        split_of(toy)


def test_forked_loader_processes_read_alike(toy):
    make_pack(toy)
    split = split_of(toy)
    transform = Compose(MultiScaleCornerCrop(40), RandomHorizontalFlip(PLAIN))
    data = ClipDataset(split.train, split.source.reader(SIZE), 8, transform, True)
    here = [data[i][0] for i in range(2)]
    loader = torch.utils.data.DataLoader(data, 1, num_workers=2)
    assert all(torch.equal(a, b[0]) for a, (b, _) in zip(here, loader, strict=True))


def test_packing_again_adds_what_is_new(toy):
    first = make_pack(toy)
    assert make_pack(toy).contents == first.contents
    toy.add_video("c/x", 2, 5)
    second = make_pack(toy)
    assert (first.videos, second.videos, second.images) == (2, 3, 44)
    assert second.contents != first.contents
    with pytest.raises(DataError, match="was packed otherwise"):
        pack(packing_of(toy, quality=50), 1, False, iter)


def test_a_bad_video_leaves_the_pack_unfinished_until_it_is_mended(toy):
    path = toy.frames / "c/w" / "img_00004.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    about, failures = pack(packing_of(toy), 1, False, iter)
    assert about is None and list(failures) == ["c/w"] and "img_00004" in failures["c/w"]
    assert not packing_of(toy).path.exists()
    about, failures = pack(packing_of(toy), 1, True, iter)
    assert about.videos == 1 and list(failures) == ["c/w"]
    path.write_bytes(whole)
    assert make_pack(toy).videos == 2


def test_a_killed_packing_goes_on(tmp_path):
    toy = TinyDataset(tmp_path)
    for number in range(16):
        toy.add_video(f"v{number:02}", 0, 30)
    code = (
        "from pathlib import Path; from datasets.sources.folders import FrameNames; "
        "from datasets.prepare.pack import Packing, pack; "
        f"frames = Path({str(toy.frames)!r}); "
        "pack(Packing(frames, FrameNames(), 'rgb', (48, 32), 95, frames), 1, False, iter)"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=ROOT)
    work = packing_of(toy, size=(48, 32)).path.with_name("rgb_48x32.lmdb.unfinished")
    end = time.monotonic() + 60
    while not (work.exists() and work.stat().st_size > 150_000) and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not packing_of(toy, size=(48, 32)).path.exists()

    begun = []
    about, _ = pack(
        packing_of(toy, size=(48, 32)), 1, False, lambda left: begun.append(left) or left
    )
    assert 0 < len(begun[0]) < 16 and about.videos == 16
    shutil.copytree(toy.frames, tmp_path / "again", ignore=shutil.ignore_patterns("*.lmdb*"))
    toy.frames = tmp_path / "again"
    assert pack(packing_of(toy, size=(48, 32)), 2, False, iter)[0].contents == about.contents


def test_packs_of_other_settings_do_not_mix(toy):
    (toy.frames / "c/w" / "img_00004.jpg").write_bytes(b"")
    pack(packing_of(toy), 1, False, iter)
    with pytest.raises(DataError, match="begun with other settings"):
        pack(packing_of(toy, quality=50), 1, False, iter)


def test_cut_off_and_foreign_packs_are_refused(toy):
    make_pack(toy)
    path = packing_of(toy).path
    whole = path.read_bytes()
    for size in (len(whole) - 4096, len(whole) // 2, 5000, 100, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"rgb_64x48.lmdb is (cut off|no pack)"):
            split_of(toy)
    path.write_bytes(b"no pack at all" * 1000)
    with pytest.raises(DataError, match=r"rgb_64x48.lmdb is no pack"):
        split_of(toy)
    path.unlink()
    with lmdb.open(str(path), subdir=False, lock=False) as other:
        with other.begin(write=True) as transaction:
            transaction.put(b"key", b"value")
    with pytest.raises(DataError, match="is an LMDB file, but no pack of frames"):
        split_of(toy)


def test_a_damaged_entry_is_found_and_named(toy):
    make_pack(toy)
    path = packing_of(toy).path
    data = path.read_bytes()
    victim = (toy.frames / "c/w" / "img_00005.jpg").read_bytes()
    path.write_bytes(data.replace(victim, victim[:-200] + b"\0" * 200))
    lines = []
    flags = ["-d", "toy", "--frames", str(toy.frames), "--size", "64x48", "--verify"]
    assert pack_frames.main(flags, lines.append) == 1
    assert lines[0] == f"damaged: 'c/w' in {path}"
    reader = PackReader(path, "rgb", SIZE)
    with pytest.raises(DataError, match=r"l:2: 'c/w': its entry in .*rgb_64x48.lmdb is damaged"):
        reader.read(VideoRecord("c/w", 9, 1, "l:2"), np.arange(1, 10))


def test_entries():
    entry = memoryview(encode_entry([b"ab", b"", b"cde"]))
    offsets = entry_offsets(entry)
    assert [bytes(entry[a:b]) for a, b in zip(offsets, offsets[1:], strict=False)] == [
        b"ab",
        b"",
        b"cde",
    ]
    assert is_whole(entry) and not is_whole(memoryview(bytes(entry)[:-1] + b"x"))


def test_a_replaced_pack_is_opened_anew(toy):
    make_pack(toy)
    path = packing_of(toy).path
    first = open_pack(path)
    assert open_pack(path) is first
    toy.add_video("c/x", 2, 5)
    make_pack(toy)
    assert "c/x" in open_pack(path).index and "c/x" not in first.index


def test_the_script_packs_both_modalities(toy):
    lines = []
    flags = ["-d", "toy", "--frames", str(toy.frames), "--size", "64x48"]
    assert pack_frames.main(flags, lines.append) == 0
    assert "2 videos, 39 images" in lines[0] and "2 videos, 74 images" in lines[1]
    assert pack_frames.main([*flags, "--verify"], lines.append) == 0
    assert lines[-1].endswith("flow_64x48.lmdb: whole")
    with pytest.raises(DataError, match="no frame folders in .*nowhere"):
        pack_frames.main(["-d", "toy", "--frames", str(toy.frames / "nowhere")])


def test_sources_of_nothing_are_frame_folders(tmp_path):
    record = VideoRecord("v", 3, 0, "l:1")
    source = choose_source(tmp_path, NAMES, "rgb", record)
    assert source.kind == FOLDERS
    with pytest.raises(DataError, match="no frame folder"):
        source.check([record])
