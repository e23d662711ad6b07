"""Videos that show the same pictures: found by perceptual hash, confirmed by their pixels.

Perceptual hashes (cv2.img_hash.PHash, 64 bits of a frame's low frequencies) of five frames
propose pairs; a pair counts if its frames agree everywhere, block by block. On real videos,
copies saved again at quality 20 to 90 or resized to 0.3 to 2 times differ by at most 6 % of the
bits and 3 grey levels in the worst block; different clips of one scene by 18 % and 27 levels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import cv2
import numpy as np

from datasets.doctor.dataset import CheckedDataset
from datasets.doctor.findings import Finding
from datasets.doctor.images import HASHED_FRAMES, read_grey
from datasets.files import DataError
from datasets.sampling import spread

MOST_BITS = 0.15  # of all; a copy that was also trimmed at its end reaches 13 %
MOST_GREY = 10.0  # of a block's mean difference
THUMBNAIL, BLOCK = 32, 4  # pixels

ReadThumbnail = Callable[[str, int], np.ndarray]  # (video, frame number) -> its thumbnail


def similar_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of videos whose hashes, uint64 (videos, frames), are close; the earlier first."""
    most = MOST_BITS * 64 * hashes.shape[1]
    for place in range(1, len(hashes)):
        bits = np.bitwise_count(hashes[:place] ^ hashes[place]).sum(axis=1, dtype=np.int64)
        for other in np.flatnonzero(bits <= most):
            yield int(other), place


def same_pictures(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    """Whether thumbnails agree in every block."""
    side = THUMBNAIL // BLOCK
    differences = np.abs(np.stack(first) - np.stack(second))
    blocks = differences.reshape(-1, side, BLOCK, side, BLOCK).mean(axis=(2, 4))
    return bool(blocks.max() <= MOST_GREY)


def are_duplicates(dataset: CheckedDataset, a: str, b: str, read: ReadThumbnail) -> bool:
    """Whether two videos show the same, from first to last frame or up to where one ends."""
    first, second = dataset.folders[a].rgb, dataset.folders[b].rgb
    ways = [(spread(first, HASHED_FRAMES), spread(second, HASHED_FRAMES))]
    if len(first) != len(second):
        ways.append((spread(min(first, second, key=len), HASHED_FRAMES),) * 2)
    try:
        return any(same_pictures([read(a, n) for n in i], [read(b, n) for n in j]) for i, j in ways)
    except DataError:
        return False  # an unreadable frame is another finding


def check_duplicates(
    dataset: CheckedDataset, hashes: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Each video that shows what another one shows.

    `hashes`: video -> those of its frames; one of fewer than HASHED_FRAMES is not compared.
    """

    @cache  # where a scene has many clips, each is compared many times
    def read_thumbnail(video: str, number: int) -> np.ndarray:
        frame = read_grey(dataset.frames, dataset.spec.names, video, number)
        size = (THUMBNAIL, THUMBNAIL)
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)

    videos = [video for video, found in hashes.items() if len(found) == HASHED_FRAMES]
    if not videos:
        return
    # who is on which side of a split
    sides = {
        (entry.split, entry.subset, record.folder)
        for entry in dataset.lists
        for record in entry.records
    }
    # pairs
    reported = set()
    for i, j in similar_pairs(np.stack([hashes[video] for video in videos])):
        a, b = videos[i], videos[j]
        if b in reported or not are_duplicates(dataset, a, b, read_thumbnail):
            continue
        reported.add(b)
        leaks = sorted(
            split
            for split, subset, video in sides
            if subset == "train" and video in (a, b)
            if (split, "val", b if video == a else a) in sides
        )
        where = f"; one trains and the other tests in split {leaks[0]}" if leaks else ""
        message = f"'{b}' shows the same as '{a}'{where}"
        fix = "compare the two, and take one out of the lists"
        yield Finding("error" if leaks else "warning", "duplicate", b, message, fix)
