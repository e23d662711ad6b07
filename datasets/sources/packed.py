"""Packs: the JPEG bytes of a dataset's images in one indexed, memory-mapped file (LMDB).

A pack is `<modality>_<width>x<height>.lmdb`, or `<modality>_original.lmdb` where nothing was
resized. It holds an entry a video, all its images one after the other, and a `PackMetadata`. It is
read without locks, without copies, and by any number of processes.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np

from datasets.files import DataError
from datasets.records import VideoRecord
from datasets.sources.reader import MAX_PIXELS, JpegReader

SUFFIX = ".lmdb"
PACK_FORMAT = 1
# No folder name begins with a zero byte.
METADATA_KEY, INDEX_KEY = b"\0about", b"\0index"
MAX_KEY = 511  # LMDB's


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

    modality: str
    size: list[int] | None
    quality: int
    preparation: dict | None = None
    videos: int = 0
    images: int = 0
    size_bytes: int = 0
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

    count: int
    checksum: int


def pack_name(modality: str, size: tuple[int, int] | None) -> str:
    """File name of a pack."""
    return f"{modality}_{f'{size[0]}x{size[1]}' if size else 'original'}{SUFFIX}"


def key_of(folder: str) -> bytes:
    key = folder.encode()
    if len(key) > MAX_KEY:
        raise DataError(f"the folder name '{folder}' is longer than {MAX_KEY} bytes; shorten it")
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
    """Where each image begins, and the end, of an entry that `encode_entry` made."""
    first = int.from_bytes(entry[8:16], "little")
    return np.frombuffer(entry[8:first], "<u8")


def is_whole(entry: memoryview) -> bool:
    """Whether an entry is the one that was written."""
    return int.from_bytes(entry[:8], "little") == zlib.crc32(entry[8:])


class Pack:
    """An open pack; it belongs to one process.

    Raises DataError for a file that is no finished pack, or was cut off.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.environment = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, create=False, max_dbs=0
            )
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{path} is no pack, or damaged ({error}); pack again") from None
        # Reading beyond the end of a memory-mapped file would kill the process.
        pages = self.environment.info()["last_pgno"] + 1
        needed, there = pages * self.environment.stat()["psize"], path.stat().st_size
        if there < needed:
            raise DataError(
                f"{path} is cut off: {there} of {needed} bytes; copy it again, or pack again"
            )
        self.transaction = self.environment.begin(buffers=True)  # one for good: nobody writes
        self.metadata = self._read_metadata()
        index = json.loads(bytes(self.transaction.get(INDEX_KEY)))
        self.index = {folder: Entry(*entry) for folder, entry in index.items()}

    def _read_metadata(self) -> PackMetadata:
        content = self.transaction.get(METADATA_KEY)
        if content is None:
            raise DataError(f"{self.path} is an LMDB file, but no pack of frames")
        try:
            metadata = PackMetadata(**json.loads(bytes(content)))
        except (TypeError, ValueError):
            metadata = None
        if metadata is None or metadata.format != PACK_FORMAT:
            raise DataError(f"{self.path} was packed by another version; pack again")
        if not metadata.contents:
            raise DataError(f"{self.path} is not finished; run scripts/data/pack_frames.py again")
        return metadata

    def entry(self, folder: str) -> memoryview | None:
        """A video's entry, not copied."""
        return self.transaction.get(key_of(folder))


_opened: dict[Path, tuple[tuple[int, int], Pack]] = {}  # path -> (which file it was, the pack)


def open_pack(path: Path) -> Pack:
    """The pack, opened once in a process, and again when its file was replaced."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
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
        entry = open_pack(self.path).entry(record.folder)
        if entry is None:
            raise DataError(f"is not in {self.path}")
        offsets = entry_offsets(entry)
        planes = len(self._decoders)
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
    for folder, wanted in progress(list(pack.index.items())):
        entry = pack.entry(folder)
        checksum = wanted.checksum.to_bytes(8, "little")
        if entry is None or entry[:8] != checksum or not is_whole(entry):
            bad.append(folder)
    return bad
