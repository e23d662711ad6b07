"""Damaged packs, read and written on by a process of their own: no damage ends it by a signal."""

import multiprocessing
import os
import random
import struct
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from datasets.files import DataError
from datasets.prepare.pack import Packing, pack
from datasets.sources import packed
from datasets.sources.folders import FrameNames
from datasets.sources.lmdb_file import check_lmdb

PAGE = 4096


def add_video(root: Path, folder: str, count: int) -> None:
    (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(1, count + 1):
        image = rng.integers(0, 256, (48, 64, 3), np.uint8)
        cv2.imwrite(str(root / folder / f"img_{number:05d}.jpg"), image)


def packing_of(tmp_path: Path, target: str = "packs") -> Packing:
    return Packing(tmp_path / "frames", FrameNames(), "rgb", (64, 48), 95, tmp_path / target)


def unfinished_of(packing: Packing) -> Path:
    return packing.path.with_name(packing.path.name + ".unfinished")


@pytest.fixture
def unfinished(tmp_path) -> Path:
    """A pack of 11 videos that is not finished; 2 are no longer wanted, 4 are to be added."""
    frames = tmp_path / "frames"
    for number in range(12):
        add_video(frames, f"v{number}", 3)
    (frames / "v11/img_00002.jpg").write_bytes(b"damaged")
    assert pack(packing_of(tmp_path), 1, False, iter)[0] is None
    for folder in ("v11", "v3", "v5"):
        (frames / folder).rename(tmp_path / folder)
    for number in range(12, 16):
        add_video(frames, f"v{number}", 2)
    return unfinished_of(packing_of(tmp_path))


def free_list(content: bytes) -> tuple[int, int]:
    """The newer meta page, and the first page of the list of free pages."""
    numbers = {struct.unpack_from("=Q", content, p * PAGE + 144)[0]: p for p in (0, 1)}
    meta = numbers[max(numbers)]
    return meta, struct.unpack_from("=Q", content, meta * PAGE + 80)[0]


def damaged(whole: bytes, seed: int) -> bytes:
    """One to three changes: of pages with keys, of the newer meta page, of the free pages' list."""
    rng, content = random.Random(seed), bytearray(whole)
    meta, free = free_list(whole)
    pages = [p for p in range(len(whole) // PAGE) if whole[p * PAGE + 10] in (1, 2, 4)]
    lower, upper = struct.unpack_from("=HH", whole, free * PAGE + 12)
    spots = [*range(free * PAGE + 8, free * PAGE + lower), *range(free * PAGE + upper, len(whole))]
    spots = [s for s in spots if s < (free + 1) * PAGE] + [meta * PAGE + n for n in range(40, 88)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        spot = rng.choice([rng.choice(spots), rng.choice(pages) * PAGE + rng.randrange(PAGE)])
        change = [b"\0", b"\xff" * rng.choice([1, 2, 4, 8]), struct.pack("=Q", rng.randrange(40))]
        content[spot : spot + 8] = (rng.choice(change) + content[spot : spot + 8])[:8]
        content[rng.choice(spots)] ^= rng.choice([0, 0, 1 << rng.randrange(8)])
    return bytes(content[: len(whole)])


def read_whole(path: Path) -> bool:
    """Reads every video; whether that ended in no DataError."""
    try:
        opened = packed.Pack(path)
        for folder in opened.index:
            opened.images(folder)
        opened.environment.close()
        return True
    except DataError:
        return False


def resume_each(tmp_path: Path, whole: bytes, count: int) -> None:
    """Goes on with `count` damaged packs; each ends in a DataError or in the right pack."""
    right = packing_of(tmp_path, "right")
    contents = pack(right, 1, False, iter)[0].contents
    for seed in range(count):
        packing = packing_of(tmp_path, f"packs{seed}")
        packing.target.mkdir()
        unfinished_of(packing).write_bytes(damaged(whole, seed))
        try:
            metadata, _ = pack(packing, 1, False, iter)
        except DataError:
            continue
        assert metadata.contents == contents and read_whole(packing.path), seed


def read_each(tmp_path: Path, whole: bytes, count: int) -> None:
    path = tmp_path / "read.lmdb"
    for seed in range(count):
        path.unlink(missing_ok=True)
        path.write_bytes(damaged(whole, seed))
        read_whole(path)
    for quarter in range(4):
        path.unlink()
        path.write_bytes(whole[: len(whole) * quarter // 4])
        assert not read_whole(path)


def in_a_process(task, *args) -> None:
    process = multiprocessing.get_context("fork").Process(target=task, args=args)
    process.start()
    process.join(120)
    assert process.exitcode == 0  # negative: a signal; 1: another exception; None: it hangs


@pytest.mark.parametrize(
    "count", [40, pytest.param(1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_unfinished_packs_are_resumed_or_refused(tmp_path, unfinished, count):
    in_a_process(resume_each, tmp_path, unfinished.read_bytes(), count)


@pytest.mark.parametrize(
    "count", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_packs_are_read_or_refused(tmp_path, unfinished, count):
    packing = packing_of(tmp_path)
    pack(packing, 1, False, iter)
    in_a_process(read_each, tmp_path, packing.path.read_bytes(), count)


def test_used_pages_in_the_list_of_free_pages(tmp_path, unfinished):
    """LMDB would write new videos over the root of the tree."""
    content = bytearray(unfinished.read_bytes())
    meta, free = free_list(content)
    (root,) = struct.unpack_from("=Q", content, meta * PAGE + 128)
    (node,) = struct.unpack_from("=H", content, free * PAGE + 16)
    pages = free * PAGE + node + 8 + 8  # after the node's header and its key
    assert struct.unpack_from("=Q", content, pages)[0] >= 1
    check_lmdb(unfinished, writing=True)
    for page, why in ((root, f"page {root} "), (1, "not in the file"), (1 << 40, "in the file")):
        struct.pack_into("=QQ", content, pages, 1, page)
        unfinished.write_bytes(content)
        check_lmdb(unfinished)
        with pytest.raises(DataError, match=f"unfinished is damaged, .*{why}"):
            pack(packing_of(tmp_path), 1, False, iter)


@pytest.mark.parametrize("ending", [".unfinished", ".unfinished.lock", ".unfinished.tmp"])
@pytest.mark.parametrize("kind", ["link", "dangling", "loop", "pipe", "folder"])
def test_no_link_is_written_through(tmp_path, ending, kind):
    add_video(tmp_path / "frames", "v1", 2)
    packing = packing_of(tmp_path)
    pack(packing, 1, False, iter)
    add_video(tmp_path / "frames", "v2", 2)
    precious, place = tmp_path / "precious", packing.path.with_name(packing.path.name + ending)
    precious.touch()
    make = {
        "link": lambda: place.symlink_to(precious),
        "dangling": lambda: place.symlink_to(tmp_path / "none"),
        "loop": lambda: place.symlink_to(place),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }
    make[kind]()
    if ending.endswith(".tmp") and kind != "folder":
        assert pack(packing, 1, False, iter)[0].videos == 2
    else:
        with pytest.raises((DataError, OSError), match=place.name):
            pack(packing, 1, False, iter)
    assert precious.read_bytes() == b"" and not (tmp_path / "none").exists()


def test_packs_whose_trees_have_levels_are_written_on(tmp_path):
    """A free list and a tree of many pages, as LMDB makes them, pass."""
    path = tmp_path / "many.lmdb"
    rng = random.Random(0)
    for _ in range(4):
        with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 28) as environment:
            for _ in range(20):
                with environment.begin(write=True) as transaction:
                    for _ in range(60):
                        key = f"{rng.randrange(2000):05}".encode() * rng.randrange(1, 40)
                        if rng.random() < 0.4:
                            transaction.delete(key)
                        else:
                            transaction.put(key, b"x" * rng.choice([0, 7, 1000, 3000, 9000, 70000]))
                check_lmdb(path, writing=True)
