"""Damaged and hostile packs end in a DataError that names the file or the video, never a crash."""

import hashlib
import json
import os
import struct
import zlib

import cv2
import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.files import DataError
from datasets.prepare.pack import Packing, PackWriter, pack
from datasets.records import VideoRecord
from datasets.sources.folders import FrameNames
from datasets.sources.lmdb_file import check_lmdb
from datasets.sources.packed import (
    INDEX_KEY,
    METADATA_KEY,
    PackReader,
    check_packed,
    encode_entry,
    entry_offsets,
    key_of,
    open_pack,
)
from tests.conftest import ROOT
from tests.mutations import TOKENS, mutated

EARLIER = ROOT / "tests/earlier_files/packs/rgb_85x64.lmdb"
VICTIM = "val_0_0"
PAGE = 4096


@pytest.fixture(scope="module")
def values() -> dict[bytes, bytes]:
    """What the pack of three videos holds."""
    with lmdb.open(str(EARLIER), subdir=False, readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            kept = (METADATA_KEY, INDEX_KEY, b"val_0_0", b"val_1_0", b"val_2_0")
            held = {key: transaction.get(key) for key in kept}
    index = json.loads(held[INDEX_KEY])
    index = {folder: entry for folder, entry in index.items() if folder.encode() in held}
    return with_index(held, json.dumps(index).encode())


def with_index(values: dict, index: bytes, **metadata) -> dict[bytes, bytes]:
    """The values with another index, whose checksum is right, and other metadata."""
    about = json.loads(values[METADATA_KEY]) | {"contents": hashlib.sha256(index).hexdigest()}
    return values | {INDEX_KEY: index, METADATA_KEY: json.dumps(about | metadata).encode()}


def write(path, values: dict[bytes, bytes]):
    path.unlink(missing_ok=True)
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 24) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key, value)
    return path


def read_all(path) -> None:
    """Reads as training does; a counterpart of a list line of 1 image for each video."""
    opened = open_pack(path)
    try:
        for folder in ("val_0_0", "val_1_0", "val_2_0"):
            record = check_packed(VideoRecord(folder, 1, 0, "list:1"), opened)
            PackReader(path, "rgb", (85, 64)).read(record, np.arange(1, 2))
    finally:
        opened.environment.close()


HOSTILE_METADATA = [
    {"size": [85, -64]},
    {"size": [85]},
    {"size": "85x64"},
    {"quality": 1000},
    {"videos": -1},
    {"images": "1e9"},
    {"modality": "x\x1b[31m"},
    {"modality": "flow"},
    {"extra": 3},
    {"format": 2},
    {"nonsense": 1},
    {"preparation": {"width": -5}},
    {"preparation": {"width": "1e9"}},
    {"preparation": {"quality": 1000}},
    {"preparation": {"flow": "x\x1b[31m"}},
    {"preparation": {"depth": 1}},
    {"preparation": [340, 256]},
]


@pytest.mark.parametrize("metadata", HOSTILE_METADATA, ids=str)
def test_metadata_of_other_types_and_bounds(values, tmp_path, metadata):
    path = write(tmp_path / "rgb_85x64.lmdb", with_index(values, values[INDEX_KEY], **metadata))
    with pytest.raises(DataError, match="rgb_85x64.lmdb"):
        read_all(path)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"[]"])
@pytest.mark.parametrize("key", [METADATA_KEY, INDEX_KEY])
def test_metadata_and_index_that_are_no_json(values, tmp_path, key, content):
    values = values | {key: content} if key == METADATA_KEY else with_index(values, content)
    with pytest.raises(DataError, match="rgb_85x64.lmdb"):
        read_all(write(tmp_path / "rgb_85x64.lmdb", values))


ENTRIES = ["[1e12, 0]", "[1000000000000, 0]", "[-1, 0]", "[1]", "[1, -1]", '"x"', "[1, 2, 3]", "{}"]


@pytest.mark.parametrize("entry", [*ENTRIES, f"[{'9' * 5000}, 0]", f"[1, {1 << 64}]"])
def test_hostile_entries_of_the_index(values, tmp_path, entry):
    path = write(tmp_path / "p.lmdb", with_index(values, f'{{"{VICTIM}": {entry}}}'.encode()))
    with pytest.raises(DataError, match="cannot read the index of .*p.lmdb"):
        read_all(path)


def test_an_index_is_compared_with_its_checksum(values, tmp_path):
    other = values[INDEX_KEY].replace(b"val_1_0", b"val_9_0")
    with pytest.raises(DataError, match="the index of .*p.lmdb is damaged"):
        read_all(write(tmp_path / "p.lmdb", values | {INDEX_KEY: other}))
    without = {key: value for key, value in values.items() if key != INDEX_KEY}
    with pytest.raises(DataError, match="the index of .*p.lmdb is damaged"):
        read_all(write(tmp_path / "p.lmdb", without))


def test_a_flipped_bit_names_the_video(values, tmp_path):
    entry = values[VICTIM.encode()]
    for place in (0, 9, 17, len(entry) // 2, len(entry) - 1):
        flipped = bytearray(entry)
        flipped[place] ^= 16
        path = write(tmp_path / "p.lmdb", values | {VICTIM.encode(): bytes(flipped)})
        with pytest.raises(
            DataError, match=f"list:1: '{VICTIM}': its entry in .*p.lmdb is damaged"
        ):
            read_all(path)


def offsets_of(*offsets: int) -> bytes:
    """An entry of 100 bytes with these offsets and the right checksum."""
    body = np.array(offsets, "<u8").tobytes()
    body += bytes(max(0, 92 - len(body)))
    return np.array([zlib.crc32(body)], "<u8").tobytes() + body


@pytest.mark.parametrize(
    "offsets",
    [
        (0, 100),
        (8, 100),
        (15, 100),
        (24, 101),
        (24, 99),
        (32, 24, 100),
        (32, 1 << 63, 100),
        (1 << 63, 100),
        (96, 100),
        (25, 100),
        (32, 100, 40),
    ],
    ids=str,
)
def test_hostile_offsets(values, tmp_path, offsets):
    """The checksums are right: whoever wrote them meant harm."""
    entry = offsets_of(*offsets)
    with pytest.raises(DataError, match="its entry is damaged"):
        entry_offsets(memoryview(entry))
    index = json.loads(values[INDEX_KEY])
    index[VICTIM] = [len(offsets) - 1, int.from_bytes(entry[:8], "little")]
    values = with_index(values, json.dumps(index).encode()) | {VICTIM.encode(): entry}
    with pytest.raises(DataError, match=f"'{VICTIM}': its entry is damaged"):
        read_all(write(tmp_path / "p.lmdb", values))


def test_an_index_with_another_count_than_the_entry(values, tmp_path):
    index = json.loads(values[INDEX_KEY])
    index[VICTIM][0] += 1
    path = write(tmp_path / "p.lmdb", with_index(values, json.dumps(index).encode()))
    with pytest.raises(DataError, match=f"'{VICTIM}': its index and its entry in .* differ"):
        read_all(path)


@pytest.mark.parametrize(("offset", "value"), [(-6, b"\xff\x3f"), (7, b"\xff" * 4), (-2, b"\xff")])
def test_sizes_and_pages_that_lead_out_of_the_file(tmp_path, offset, value):
    """Without the check, the first of these ends the process with SIGBUS."""
    content = bytearray(EARLIER.read_bytes())
    key = struct.pack("=H", len(VICTIM)) + VICTIM.encode()
    place = content.find(key)
    while place >= 0:
        content[place + 2 + offset : place + 2 + offset + len(value)] = value
        place = content.find(key, place + 1)
    path = tmp_path / "p.lmdb"
    path.write_bytes(content)
    with pytest.raises(DataError, match="p.lmdb is damaged, on page 3"):
        read_all(path)


def test_pages_in_a_circle(tmp_path):
    path = tmp_path / "p.lmdb"
    names = {f"{n:05}".encode(): b"x" * 100 for n in range(500)}
    content = bytearray(write(path, names).read_bytes())
    branches = [p for p in range(0, len(content), PAGE) if content[p + 10 : p + 12] == b"\1\0"]
    check_lmdb(path)
    for page in branches:
        lower = struct.unpack_from("=H", content, page + 12)[0]
        for place in struct.unpack_from(f"={(lower - 16) // 2}H", content, page + 16):
            struct.pack_into("=HH", content, page + place, page // PAGE, 0)
    path.write_bytes(content)
    with pytest.raises(DataError, match="in a circle"):
        open_pack(path)


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.lmdb")
    (tmp_path / "folder.lmdb").mkdir()
    (tmp_path / "loop.lmdb").symlink_to("loop.lmdb")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=path.name):
            open_pack(path)


def test_a_video_is_compared_once(values, tmp_path, monkeypatch):
    path = write(tmp_path / "p.lmdb", values)
    compared = []
    monkeypatch.setattr(
        "datasets.sources.packed.is_whole", lambda entry: compared.append(1) or True
    )
    reader = PackReader(path, "rgb", (85, 64))
    for _ in range(3):
        reader.read(VideoRecord(VICTIM, 3, 0, "l:1"), np.arange(1, 4))
    assert len(compared) == 1


def test_an_unfinished_pack_with_a_hostile_entry_is_packed_again(tmp_path):
    frames = tmp_path / "frames" / "v"
    frames.mkdir(parents=True)
    cv2.imwrite(str(frames / "img_00001.jpg"), np.zeros((48, 64, 3), np.uint8))
    packing = Packing(tmp_path / "frames", FrameNames(), "rgb", None, 95, tmp_path / "frames")
    writer = PackWriter(packing)
    with writer.environment.begin(write=True) as transaction:
        transaction.put(key_of("v"), b"\xff" * 40)
    writer.close()
    assert not list((tmp_path / "frames").glob("*.lock"))
    about, failures = pack(packing, 1, False, iter)
    assert about.images == 1 and not failures
    read = encode_entry([(frames / "img_00001.jpg").read_bytes()])
    assert bytes(open_pack(packing.path).images("v")[0]) == read


@pytest.mark.parametrize("what", [METADATA_KEY, INDEX_KEY, VICTIM.encode()])
def test_mutations_of_a_value(values, tmp_path, what):
    path = tmp_path / "p.lmdb"

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(mutated(values[what]))
    def check(content: bytes) -> None:
        changed = values | {what: content}
        if what == INDEX_KEY:
            changed = with_index(values, content)
        try:
            read_all(write(path, changed))
        except DataError:
            pass

    check()


def tree_bytes(content: bytes) -> list[int]:
    """The places of all bytes of the meta pages and of the pages with keys."""
    return [
        place
        for page in range(0, len(content), PAGE)
        if struct.unpack_from("=Q", content, page)[0] == page // PAGE
        and struct.unpack_from("=H", content, page + 10)[0] in (1, 2, 8)
        for place in range(page, page + PAGE)
    ]


def test_mutations_of_the_file(tmp_path):
    """Bytes of its pages, and its length. A crash would end the tests themselves."""
    whole, path = EARLIER.read_bytes(), tmp_path / "p.lmdb"
    places = st.sampled_from(tree_bytes(whole))
    change = st.tuples(places, st.sampled_from([b"\0", b"\xff", b"\xff" * 4, *TOKENS]))

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(st.lists(change, max_size=4), st.one_of(st.none(), st.integers(0, len(whole))))
    def check(changes: list, size: int | None) -> None:
        content = bytearray(whole)
        for place, value in changes:
            content[place : place + len(value[:8])] = value[:8]
        path.unlink(missing_ok=True)
        path.write_bytes(content[:size])
        try:
            read_all(path)
        except DataError:
            pass

    check()
