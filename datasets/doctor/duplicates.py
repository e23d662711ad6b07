"""Videos that show the same pictures: found by perceptual hash, confirmed by their pixels.

Perceptual hashes (cv2.img_hash.PHash, 64 bits of a frame's low frequencies) of five frames
propose pairs; a pair counts if its frames agree everywhere, block by block. On real videos,
copies saved again at quality 20 to 90 or resized to 0.3 to 2 times differ by at most 6 % of the
bits and 3 grey levels in the worst block; different clips of one scene by 18 % and 27 levels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
import numpy as np

from datasets.doctor.findings import Finding
from datasets.doctor.folders import Folder
from datasets.doctor.lists import VideoList
from datasets.lists import DataError

FRAMES = 5
MOST_BITS = 0.15  # of all; a copy that was also trimmed at its end reaches 13 %
MOST_GREY = 10.0  # of a block's mean difference
THUMBNAIL, BLOCK = 32, 4  # pixels

Reader = Callable[[str, int], np.ndarray]  # (video, frame number) -> its thumbnail


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, evenly, with the first and the last."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[place] for place in places]


def hash_frames(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Grey frames -> perceptual hashes, uint64 (len,)."""
    engine = cv2.img_hash.PHash.create()
    return np.concatenate([engine.compute(frame)[0] for frame in frames]).view(np.uint64)


def similar_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of videos whose hashes, uint64 (videos, frames), are close; the earlier first."""
    most = MOST_BITS * 64 * hashes.shape[1]
    for place in range(1, len(hashes)):
        bits = np.bitwise_count(hashes[:place] ^ hashes[place]).sum(axis=1, dtype=np.int64)
        for other in np.flatnonzero(bits <= most):
            yield int(other), place


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """What of a grey frame is compared: float32 (THUMBNAIL, THUMBNAIL)."""
    size = (THUMBNAIL, THUMBNAIL)
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def same_pictures(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    """Whether thumbnails agree in every block."""
    side = THUMBNAIL // BLOCK
    differences = np.abs(np.stack(first) - np.stack(second))
    blocks = differences.reshape(-1, side, BLOCK, side, BLOCK).mean(axis=(2, 4))
    return bool(blocks.max() <= MOST_GREY)


def are_duplicates(a: str, b: str, folders: Mapping[str, Folder], read: Reader) -> bool:
    """Whether two videos show the same, from first to last frame or up to where one ends."""
    first, second = folders[a].rgb, folders[b].rgb
    ways = [(spread(first, FRAMES), spread(second, FRAMES))]
    if len(first) != len(second):
        ways.append((spread(min(first, second, key=len), FRAMES),) * 2)
    try:
        return any(same_pictures([read(a, n) for n in i], [read(b, n) for n in j]) for i, j in ways)
    except DataError:
        return False  # an unreadable frame is another finding


def check_duplicates(
    hashes: Mapping[str, np.ndarray],
    lists: Sequence[VideoList],
    folders: Mapping[str, Folder],
    read: Reader,
) -> Iterator[Finding]:
    """Each video that shows what another one shows.

    Args:
        hashes: video -> those of its frames; one of fewer than FRAMES is not compared.
        read: gives thumbnails of frames; raises DataError for one that cannot be read.
    """
    videos = [video for video, found in hashes.items() if len(found) == FRAMES]
    if not videos:
        return
    parts = {part: set() for part in ("train", "val")}
    for entry in lists:
        parts[entry.part] |= {(entry.split, record.folder) for record in entry.records}
    reported = set()
    for i, j in similar_pairs(np.stack([hashes[video] for video in videos])):
        a, b = videos[i], videos[j]
        if b in reported or not are_duplicates(a, b, folders, read):
            continue
        reported.add(b)
        leaks = sorted(
            split
            for x, y in ((a, b), (b, a))
            for split, video in parts["train"]
            if video == x and (split, y) in parts["val"]
        )
        where = f"; one trains and the other tests in split {leaks[0]}" if leaks else ""
        yield Finding(
            "error" if leaks else "warning",
            "duplicate",
            b,
            f"'{b}' shows the same as '{a}'{where}",
            "look at both, and take one out of the lists",
        )
