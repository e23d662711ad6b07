"""Frame folders -> a pack, whole or not at all; a packing that was killed resumes."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import lmdb
import numpy as np

from datasets.files import (
    DataError,
    check_file,
    check_name,
    check_writable,
    said_plainly,
    written_whole,
)
from datasets.preparation import UNFINISHED, read_preparation
from datasets.records import VideoRecord
from datasets.sources import packed
from datasets.sources.folders import FrameNames, count_images, find_frame_folders
from datasets.sources.frames import FrameReader
from datasets.sources.lmdb_file import check_lmdb
from datasets.sources.reader import JpegDecoder

ADDRESS_SPACE = 1 << 40  # what a pack may grow to; the file takes what it holds


@dataclass(frozen=True)
class Packing:
    """What to pack.

    Attributes:
        root, names: the frame folders, and the file names of their images.
        modality: "rgb" or "flow".
        size: (width, height) to resize to, or None: as they are.
        quality: of the JPEG images that have to be resized, 1..100.
        target: folder that the pack goes to.
    """

    root: Path
    names: FrameNames
    modality: str
    size: tuple[int, int] | None
    quality: int
    target: Path

    @property
    def path(self) -> Path:
        return self.target / packed.pack_name(self.modality, self.size)

    def counts(self, folder: str) -> list[int]:
        """The images in a folder, of each pattern."""
        return count_images(self.root / folder, self.names, self.modality)

    def metadata(self) -> packed.PackMetadata:
        return packed.PackMetadata(
            modality=self.modality,
            size=list(self.size) if self.size else None,
            quality=self.quality,
            preparation=read_preparation(self.root),
        )


def load_video(packing: Packing, folder: str) -> list[bytes]:
    """A video's images as they go into a pack: x and y of flow alternate.

    An image that has the size already keeps its very bytes; another is resized as the reader
    resizes it and encoded again. All are decoded once, so that what is packed is readable.
    Raises DataError, naming the file.
    """
    counts = packing.counts(folder)
    if len(set(counts)) > 1:
        raise DataError(f"{counts[0]} x and {counts[1]} y flow images; extract its flow again")
    is_flow = packing.modality == "flow"
    reader = FrameReader(packing.root, packing.names, packing.modality, packing.size or (1, 1))
    record = VideoRecord(folder, counts[0], 0, "")
    slot = np.empty(reader.image_shape, np.uint8)
    decode = JpegDecoder(grey=is_flow)
    flags = [cv2.IMWRITE_JPEG_QUALITY, packing.quality]
    images = []
    for number in range(1, counts[0] + 1):
        files = reader.files(record, number)
        shapes = {decode(data, name).shape[:2] for name, data in files}
        if packing.size is None or shapes == {slot.shape[:2]}:
            images += [data for _, data in files]
        else:
            reader.decode(files, slot)
            planes = cv2.split(slot) if is_flow else [slot[..., ::-1]]
            images += [cv2.imencode(".jpg", plane, flags)[1].tobytes() for plane in planes]
    return images


class PackWriter:
    """A pack that is being written, under another name until it is finished.

    Every video is a transaction: after a kill, those that were written are there, whole.
    Raises DataError if the unfinished pack is one of other settings, or another process's.
    """

    def __init__(self, packing: Packing):
        self.packing, self.metadata = packing, packing.metadata()
        check_writable(packing.target)
        self.work = packing.path.with_name(packing.path.name + UNFINISHED)
        lock = self.work.with_name(self.work.name + ".lock")
        for path in (self.work, lock):
            if path.is_symlink():
                raise DataError(f"{path} is a link: nothing is written there; remove it")
            if path.exists():
                check_file(path, "pack")
        self._lock = open(lock, "a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(self._lock.name)  # whoever had it removes it at the end
        except OSError:
            self._lock.close()
            raise DataError(f"another process is writing {self.work}") from None
        try:
            self.environment = self._open()
        except BaseException:
            self._unlock()
            raise

    def _open(self) -> lmdb.Environment:
        packing, work = self.packing, self.work
        # a finished pack of the same settings is the beginning of one with more videos
        if packing.path.exists() and not work.exists():
            if packed.open_pack(packing.path).metadata.begun() != self.metadata:
                raise DataError(f"{packing.path} was packed otherwise; remove it to pack again")
            with open(packing.path, "rb") as finished, written_whole(work) as file:
                shutil.copyfileobj(finished, file)
        if work.exists() and work.stat().st_size:
            check_lmdb(work, writing=True)
        # The lock above is the only one needed: LMDB's own would leave a file there. Without
        # `metasync` a power failure may undo the last video, and only that.
        flags = {"subdir": False, "max_dbs": 0, "lock": False, "metasync": False}
        environment = lmdb.open(str(work), map_size=ADDRESS_SPACE, **flags)
        try:
            with environment.begin(write=True) as transaction:
                content = transaction.get(packed.METADATA_KEY)
                if content is None:
                    transaction.put(packed.METADATA_KEY, self.metadata.encode())
                elif packed.decode_metadata(content, work).begun() != self.metadata:
                    raise DataError(
                        f"{work} was begun with other settings; use the same, or remove it"
                    )
        except BaseException:
            environment.close()
            raise
        return environment

    def has(self, folder: str) -> bool:
        """Whether a video is there, with as many images as its folder has."""
        with self.environment.begin(buffers=True) as transaction:
            entry = transaction.get(packed.key_of(folder))
            images = sum(self.packing.counts(folder))
            try:
                return entry is not None and len(packed.entry_offsets(entry)) - 1 == images
            except DataError:
                return False  # it is packed again

    def put(self, folder: str, images: list[bytes]) -> None:
        with self.environment.begin(write=True) as transaction:
            transaction.put(packed.key_of(folder), packed.encode_entry(images))

    def finish(self, folders: list[str]) -> packed.PackMetadata:
        """Reads every entry back, writes index and metadata, and gives the pack its name."""
        index, images, size_bytes = {}, 0, 0
        with self.environment.begin(write=True, buffers=True) as transaction:
            # videos that are no longer wanted
            wanted = {packed.key_of(folder) for folder in folders}
            keys = [bytes(key) for key, _ in transaction.cursor()]
            for key in keys:
                if key not in wanted and not key.startswith(b"\0"):
                    transaction.delete(key)
            # all others, read back
            for folder in folders:
                entry = transaction.get(packed.key_of(folder))
                if entry is None or not packed.is_whole(entry):
                    raise DataError(f"{self.work}: '{folder}' is damaged; remove it and pack again")
                files = len(packed.entry_offsets(entry)) - 1
                count = files // len(self.packing.names.patterns(self.packing.modality))
                index[folder] = (count, int.from_bytes(entry[:8], "little"))
                images, size_bytes = images + files, size_bytes + len(entry)
            # index and metadata
            lines = json.dumps(index).encode()
            metadata = replace(
                self.metadata,
                videos=len(index),
                images=images,
                size_bytes=size_bytes,
                contents=hashlib.sha256(lines).hexdigest(),
            )
            transaction.put(packed.INDEX_KEY, lines)
            transaction.put(packed.METADATA_KEY, metadata.encode())
        self.environment.sync(True)
        self.environment.close()
        self.work.replace(self.packing.path)
        return metadata

    def close(self) -> None:
        self.environment.close()
        self._unlock()

    def _unlock(self) -> None:
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()


def pack(
    packing: Packing, workers: int, leave_out: bool, progress: Callable[[list], Iterable]
) -> tuple[packed.PackMetadata | None, dict[str, str]]:
    """Packs all folders; returns (None if it is not finished, folder -> why it is not packed).

    With videos that cannot be read the pack stays unfinished, so that they can be fixed and the
    rest is not done again; `leave_out` finishes without them. `progress` wraps the list of what
    is left to do.
    """
    folders = find_frame_folders(packing.root, packing.names, [packing.modality])
    if not folders:
        raise DataError(f"no {packing.modality} frame folders in {packing.root}; give --frames")
    failures = _refused(folders)
    folders = [folder for folder in folders if folder not in failures]
    if not failures or leave_out:
        if (metadata := _finished(packing, folders)) is not None:
            return metadata, failures
    try:
        with said_plainly(packing.path), closing(PackWriter(packing)) as writer:
            left = [folder for folder in folders if not writer.has(folder)]
            for folder, images in _load_ahead(packing, progress(left), workers):
                try:
                    writer.put(folder, images.result())
                except DataError as error:
                    failures[folder] = str(error)
            if failures and not leave_out:
                return None, failures
            return writer.finish([f for f in folders if f not in failures]), failures
    except lmdb.DiskError:
        raise OSError(errno.ENOSPC, "disk full", str(packing.path)) from None
    except lmdb.Error as error:
        raise DataError(
            f"cannot write {packing.path}: {error}; what is packed stays: run this again"
        ) from None


def _refused(folders: list[str]) -> dict[str, str]:
    """The folders whose names cannot stand in a list or a pack -> why."""
    refused = {}
    for folder in folders:
        try:
            packed.key_of(check_name(folder, "the frame folder", nested=True))
        except DataError as error:
            refused[folder] = str(error)
    return refused


def _finished(packing: Packing, folders: list[str]) -> packed.PackMetadata | None:
    """What the pack says of itself, if it is there and holds these folders as they are."""
    if not packing.path.exists():
        return None
    there = packed.open_pack(packing.path)
    if there.metadata.begun() != packing.metadata() or there.index.keys() != set(folders):
        return None
    counts = ({there.index[folder].count} == set(packing.counts(folder)) for folder in folders)
    return there.metadata if all(counts) else None


def _load_ahead(
    packing: Packing, folders: Iterable[str], workers: int
) -> Iterator[tuple[str, Future]]:
    """The videos in order, loaded by threads a few ahead (decoders let go of Python's lock)."""
    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:
        for folder in folders:
            waiting.append((folder, pool.submit(load_video, packing, folder)))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        yield from waiting
