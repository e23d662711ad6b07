"""Packs: the JPEG bytes of a dataset's images in one indexed, memory-mapped file (LMDB).

A pack is `<modality>_<width>x<height>.lmdb`, or `<modality>_original.lmdb` where nothing was
resized. It holds an entry a video, all its images one after the other, and a `PackMetadata`. It is
read without locks, without copies, and by any number of processes.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import lmdb
import msgspec
import numpy as np

from datasets.files import DataError, check_file, decode_json
from datasets.preparation import Preparation, Quality, Side, check_preparation
from datasets.records import MAX_PIXELS, MOST_FRAMES, VideoRecord
from datasets.sources.lmdb_file import check_lmdb
from datasets.sources.reader import JpegReader

SUFFIX = ".lmdb"
PACK_FORMAT = 1
# No folder name begins with a zero byte.
METADATA_KEY, INDEX_KEY = b"\0about", b"\0index"
MAX_KEY = 511  # LMDB's

AtLeast0 = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class PackMetadata:
    """What a pack says of itself; JSON.

    Attributes:
        modality: "rgb" or "flow".
        size: [width, height] of all images, or None: as they were.
        quality: of the JPEG images that had to be resized, 1..100.
        preparation: how frames and flow were made, where that is recorded.
        videos, images, size_bytes: how many; 0 in a pack that is not finished.
        contents: SHA-256 of the index, so of all names, counts and images; "" until finished.
        format: of the entries.
        extra: room for what others record.
    """

    modality: Literal["rgb", "flow"]
    size: Annotated[list[Side], msgspec.Meta(min_length=2, max_length=2)] | None
    quality: Quality
    preparation: Preparation | None = None
    videos: AtLeast0 = 0
    images: AtLeast0 = 0
    size_bytes: AtLeast0 = 0
    contents: str = ""
    format: int = PACK_FORMAT
    extra: dict = field(default_factory=dict)

    def begun(self) -> "PackMetadata":
        """The part that was known before the first video."""
        return replace(self, videos=0, images=0, size_bytes=0, contents="")

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode()


class Entry(NamedTuple):
    """A video's line of the index: its time steps and the checksum of its entry."""

    count: Annotated[int, msgspec.Meta(ge=0, le=MOST_FRAMES)]
    checksum: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


def pack_name(modality: str, size: tuple[int, int] | None) -> str:
    """File name of a pack."""
    return f"{modality}_{f'{size[0]}x{size[1]}' if size else 'original'}{SUFFIX}"


def key_of(folder: str) -> bytes:
    key = folder.encode()
    if not 1 <= len(key) <= MAX_KEY:
        raise DataError(f"the folder name '{folder}' is not of 1 to {MAX_KEY} bytes; rename it")
    return key


def encode_entry(images: list[bytes]) -> bytes:
    """A video's images, in order (x and y of flow alternate) -> its entry.

    uint64 checksum, uint64 offset of each image and of the end, then the images; the checksum is
    the CRC-32 of all that follows it.
    """
    start = 8 * (len(images) + 2)
    offsets = start + np.cumsum([0, *map(len, images)], dtype=np.uint64)
    body = b"".join([offsets.astype("<u8").tobytes(), *images])
    return np.array([zlib.crc32(body)], "<u8").tobytes() + body


def entry_offsets(entry: memoryview) -> np.ndarray:
    """Where each image begins, and the end, of an entry that `encode_entry` made.

    Raises DataError for offsets that do not ascend from their own end to the entry's.
    """
    first = int.from_bytes(entry[8:16], "little")
    if not 16 <= first <= len(entry) or first % 8:
        raise DataError("its entry is damaged; remove it and pack again")
    offsets = np.frombuffer(entry[8:first], "<u8")
    if offsets[-1] != len(entry) or np.any(offsets[1:] < offsets[:-1]):
        raise DataError("its entry is damaged; remove it and pack again")
    return offsets


def is_whole(entry: memoryview) -> bool:
    """Whether an entry is the one that was written."""
    return int.from_bytes(entry[:8], "little") == zlib.crc32(entry[8:])


def decode_metadata(content: bytes, path: Path) -> PackMetadata:
    """The metadata of the pack at `path`; raises DataError for what is none of this format."""
    name = f"the metadata of {path}"
    about = decode_json(content, dict, name)
    known = {field.name for field in fields(PackMetadata)}
    if about.get("format", PACK_FORMAT) != PACK_FORMAT or about.keys() - known:
        raise DataError(f"{path} was packed by another version; remove it and pack again")
    try:
        if isinstance(recorded := about.get("preparation"), dict):
            about["preparation"] = check_preparation(recorded, name)
        return msgspec.convert(about, PackMetadata)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DataError(f"cannot read {name}: {error}; remove it and pack again") from None


class Pack:
    """An open pack; it belongs to one process.

    Raises DataError for a file that is no finished pack, was cut off, or is damaged. A video's
    entry is compared with its checksum when it is first read.
    """

    def __init__(self, path: Path):
        self.path = path
        check_lmdb(path)
        try:
            self.environment = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, create=False, max_dbs=0
            )
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{path} is no pack, or damaged ({error}); remove it") from None
        try:
            self.transaction = self.environment.begin(buffers=True)  # one for good: nobody writes
            self.metadata, self.index = self._read()
        except (DataError, lmdb.Error) as error:
            self.environment.close()
            raise DataError(str(error)) from None
        self._planes = 1 if self.metadata.modality == "rgb" else 2
        self._verified: set[str] = set()

    def _read(self) -> tuple[PackMetadata, dict[str, Entry]]:
        """Metadata and index, the index compared with its checksum."""
        path, content = self.path, self._value(METADATA_KEY)
        if content is None:
            raise DataError(f"{path} is an LMDB file, but no pack of frames")
        metadata = decode_metadata(bytes(content), path)
        if not metadata.contents:
            raise DataError(f"{path} is not finished; run scripts/data/pack_frames.py again")
        lines = bytes(self._value(INDEX_KEY) or b"")
        if hashlib.sha256(lines).hexdigest() != metadata.contents:
            raise DataError(f"the index of {path} is damaged; remove it and pack again")
        return metadata, decode_json(lines, dict[str, Entry], f"the index of {path}")

    def _value(self, key: bytes) -> memoryview | None:
        try:
            return self.transaction.get(key)
        except lmdb.Error as error:
            raise DataError(f"{self.path} is damaged ({error}); remove it and pack again") from None

    def images(self, folder: str) -> tuple[memoryview, np.ndarray]:
        """A video's entry, not copied, and its `entry_offsets`.

        Raises DataError if it is not there, or not what was written.
        """
        wanted = self.index.get(folder)
        entry = None if wanted is None else self._value(key_of(folder))
        if entry is None:
            raise DataError(f"is not in {self.path}")
        if folder in self._verified:
            return entry, np.frombuffer(entry[8 : int.from_bytes(entry[8:16], "little")], "<u8")
        if int.from_bytes(entry[:8], "little") != wanted.checksum or not is_whole(entry):
            raise DataError(f"its entry in {self.path} is damaged; remove it and pack again")
        offsets = entry_offsets(entry)
        if len(offsets) - 1 != wanted.count * self._planes:
            raise DataError(
                f"its index and its entry in {self.path} differ; remove it and pack again"
            )
        self._verified.add(folder)
        return entry, offsets


_opened: dict[Path, tuple[tuple[int, int], Pack]] = {}  # path -> (which file it was, the pack)


def open_pack(path: Path) -> Pack:
    """The pack, opened once in a process, and again when its file was replaced."""
    state = check_file(path, "pack").stat()
    which = (state.st_ino, state.st_mtime_ns)
    if path in _opened and _opened[path][0] != which:
        _opened.pop(path)[1].environment.close()
    if path not in _opened:
        _opened[path] = which, Pack(path)
    return _opened[path][1]


def _close_inherited() -> None:
    """LMDB's handles do not survive a fork: a loader process opens its own."""
    for _, pack in _opened.values():
        pack.environment.close()
    _opened.clear()


os.register_at_fork(after_in_child=_close_inherited)


class PackReader(JpegReader):
    """Reads the pack at `path`; the other arguments: see `JpegReader`."""

    def __init__(
        self,
        path: Path,
        modality: str,
        size: tuple[int, int],
        scaled: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(modality, size, scaled, max_pixels)
        self.path = path

    def files(self, record: VideoRecord, number: int) -> list[tuple[str, memoryview]]:
        pack, planes = open_pack(self.path), len(self._decoders)
        if pack.metadata.modality != self.modality:
            raise DataError(f"{self.path} holds {pack.metadata.modality}, not {self.modality}")
        entry, offsets = pack.images(record.folder)
        places = range((number - 1) * planes, number * planes)
        if places[-1] + 1 >= len(offsets):
            raise DataError(
                f"lacks {self.modality} image {number} of {record.count} in {self.path}"
            )
        name = f"image {number} in {self.path}"
        return [(name, entry[int(offsets[p]) : int(offsets[p + 1])]) for p in places]


def check_packed(record: VideoRecord, pack: Pack) -> VideoRecord:
    """The record, its count known to be in the pack; flow may be one short, as in folders."""
    entry = pack.index.get(record.folder)
    if entry is None:
        raise DataError(f"{record.line}: '{record.folder}' is not in {pack.path}; pack it again")
    for count in (record.count, record.count - (pack.metadata.modality == "flow")):
        if 1 <= count <= entry.count:
            return replace(record, count=count)
    raise DataError(
        f"{record.line}: '{record.folder}' should have {record.count} {pack.metadata.modality} "
        f"images, but {pack.path} has {entry.count}; correct the list or pack again"
    )


def damaged_videos(path: Path, progress: Callable[[list], Iterable]) -> list[str]:
    """The folders whose entries are not what was written; `progress` wraps the list of all."""
    pack = open_pack(path)
    bad = []
    for folder in progress(list(pack.index)):
        try:
            pack.images(folder)
        except DataError:
            bad.append(folder)
    return bad
