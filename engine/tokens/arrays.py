"""A video's tokens in a file: an npy array of float16 or bfloat16, then its checksum.

NumPy reads the array as ever (bfloat16, which it does not know, as the uint16 of its bits): what
follows is 8 bytes that say so and the CRC-32 of all before.
Caches of earlier code have none.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datasets import DataError
from datasets.files import check_file, printable, written_whole

MARK = b"\ncrc32: "
CHECKSUM = len(MARK) + 4  # bytes after the array
STORED = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(np.uint16)}  # as npy arrays
INFINITE = {STORED["float16"]: 0x7C00, STORED["bfloat16"]: 0x7F80}  # their bits of the exponent
AGAIN = "remove it and run scripts/cache_tokens.py again"


class VideoTokens(Sequence[np.ndarray]):
    """Each video's views (views, ...): float16, memory-mapped when asked for; bfloat16 as float32.

    A file's checksum and numbers are verified when it is first read: DataError names a damaged one.

    Args:
        paths: the videos' files.
        rows: which views of each are meant.
        need_checksums: whether files without one are damaged.
        verified: the paths that need no other look; shared with what is taken of these.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        rows: Sequence[slice],
        need_checksums: bool = False,
        verified: set[Path] | None = None,
    ):
        self.paths, self.rows, self.need_checksums = paths, rows, need_checksums
        self.verified = set() if verified is None else verified

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, videos: Sequence[int]) -> "VideoTokens":
        """Those of some videos."""
        paths, rows = [self.paths[v] for v in videos], [self.rows[v] for v in videos]
        return VideoTokens(paths, rows, self.need_checksums, self.verified)

    def __getitem__(self, video: int) -> np.ndarray:
        path = self.paths[video]
        tokens = map_tokens(path)
        if path not in self.verified:
            _verify(path, tokens, self.need_checksums)
            self.verified.add(path)
        views = tokens[self.rows[video]]
        if views.dtype == STORED["bfloat16"]:
            return (views.astype(np.uint32) << 16).view(np.float32)
        return views


def store_tokens(path: Path, tokens: np.ndarray, numbers: str = "float16") -> None:
    """Writes a video's tokens (views, ...), to the disk itself, whole or not at all.

    `numbers` is float16, or bfloat16, which holds larger ones. Raises DataError beyond that.
    """
    half = torch.from_numpy(tokens).to(getattr(torch, numbers))
    if not half.isfinite().all():
        raise DataError(f"{path}: the tokens reach {np.abs(tokens).max()}, beyond {numbers}")
    half = half.view(torch.uint16).numpy().view(STORED[numbers])
    with written_whole(path) as file:
        summed = _Summed(file)
        np.lib.format.write_array(summed, half, allow_pickle=False)
        file.write(MARK + summed.crc.to_bytes(4, "little"))
        file.flush()
        os.fsync(file.fileno())


class _Summed:
    """A file to write in that keeps the CRC-32 of what was written."""

    def __init__(self, file):
        self.file, self.crc = file, 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self.file.write(data)


def map_tokens(path: Path) -> np.memmap:
    """A file's array, memory-mapped; raises DataError unless it is a whole one of `STORED`.

    Its numbers and checksum are not looked at.
    """
    try:
        # "c": what is written, which torch warns of otherwise, would not reach the file.
        with np.errstate(over="ignore"):  # a header may claim any shape
            tokens = np.lib.format.open_memmap(check_file(path, "tokens"), mode="c")
        more = path.stat().st_size - tokens.offset - tokens.nbytes
        if more not in (0, CHECKSUM):
            raise ValueError(f"{more} bytes follow its array")
    except DataError:
        raise
    except Exception as error:  # whatever broken bytes lead NumPy to
        raise DataError(
            f"{path} is truncated or no array ({printable(str(error)[:200])}); {AGAIN}"
        ) from None
    if tokens.dtype not in STORED.values() or tokens.ndim < 2 or not tokens.size:
        raise DataError(
            f"{path} holds {tokens.shape} in {tokens.dtype}, not (views, ...) in float16 or "
            f"bfloat16; {AGAIN}"
        )
    return tokens


def _verify(path: Path, tokens: np.memmap, need_checksum: bool) -> None:
    """Raises DataError unless the file is as it was written, all its numbers finite."""
    content = np.memmap(path, np.uint8, "r")
    end = len(content) - CHECKSUM
    if tokens.offset + tokens.nbytes > end:
        if need_checksum:
            raise DataError(f"{path} has lost its checksum; {AGAIN}")
    else:
        mark, crc = content[end:-4].tobytes(), int.from_bytes(content[-4:].tobytes(), "little")
        if mark != MARK or zlib.crc32(content[:end]) != crc:
            raise DataError(f"{path} is damaged: it is not what its checksum says; {AGAIN}")
    infinite = INFINITE[tokens.dtype]
    if ((tokens.view(np.uint16) & infinite) == infinite).any():  # faster than isfinite
        raise DataError(f"{path} holds NaN or infinity; {AGAIN}")
