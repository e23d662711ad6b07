"""Records -> frames -> transform -> (clip, label): what the data loaders iterate over."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.files import DataError
from datasets.records import VideoRecord
from datasets.samplers import Padding
from datasets.sampling import central_offsets, clip_frames, random_offsets
from datasets.sources.reader import Reader

IGNORED = -100  # the label of padding: cross-entropy leaves it out
ClipTransform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(eq=False)
class ClipDataset(Dataset):
    """Training or validation clips of a list.

    Item i is (clips, label): uint8 (segments, T, H, W, C) and an int. Everything random about
    an item is a function of (seed, epoch, i) alone, so it depends neither on the number of
    workers nor on what was loaded before. An item of `Padding` has the label IGNORED instead.

    Attributes:
        records: the videos.
        reader: reads their frames.
        length: frames of a clip, T.
        segments: clips of a video.
        transform: of all a video's clips alike, (segments * T, H, W, C).
        training: random offsets, or central ones.
        seed: of the randomness.
        max_bad: None stops at the first video that cannot be read. A number replaces such a
            video by its nearest good neighbour in the list, says so once, and stops when more
            than that share of the list, in percent, was bad.
    """

    records: Sequence[VideoRecord]
    reader: Reader
    length: int
    transform: ClipTransform
    training: bool
    segments: int = 1
    seed: int = 0
    max_bad: float | None = None

    def __post_init__(self):
        # Shared memory: loader processes record here which videos they had to replace.
        self.bad = torch.zeros(len(self.records), dtype=torch.uint8).share_memory_()
        # Shared memory: workers that live for several epochs see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, so that it draws other offsets and crops."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if isinstance(index, Padding):
            return self[int(index)][0], IGNORED
        for neighbour in self._nearest(index):
            try:
                return self._load(neighbour, index)
            except DataError as error:
                self._count_bad(neighbour, error)
            except MemoryError:
                raise MemoryError(_no_memory(self.records[neighbour])) from None
        raise DataError("no video of the list can be read")

    def _nearest(self, index: int) -> Iterator[int]:
        """The places of the list, from the nearest on; of two as near, the earlier first."""
        for distance in range(len(self)):
            for place in {index - distance: None, index + distance: None}:
                if 0 <= place < len(self):
                    yield place

    def _count_bad(self, index: int, error: DataError) -> None:
        """Raises the error, or counts the video as bad; raises DataError if there are too many."""
        if self.max_bad is None:
            raise error
        if self.bad[index]:
            return
        self.bad[index] = 1
        number = int(self.bad.sum())
        if number > self.max_bad / 100 * len(self):
            raise DataError(
                f"{number} of {len(self)} videos are bad, more than --max-bad {self.max_bad} %; "
                f"the last: {error}"
            )
        print(f"warning: replaced by its neighbour: {error}", file=sys.stderr, flush=True)

    def _load(self, index: int, seed_index: int) -> tuple[Tensor, int]:
        record = self.records[index]
        rng = np.random.default_rng((self.seed, int(self._epoch), seed_index))
        if self.training:
            offsets = random_offsets(record.count, self.length, self.segments, rng)
        else:
            offsets = central_offsets(record.count, self.length, self.segments)
        numbers = np.concatenate([clip_frames(o, record.count, self.length) for o in offsets])
        clip = self._read(record, numbers, rng)
        return torch.from_numpy(clip).unflatten(0, (self.segments, self.length)), record.label

    def _read(
        self, record: VideoRecord, numbers: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The transformed images of the numbers, a few at a time, all with the same draws."""
        unique, places = np.unique(numbers, return_inverse=True)
        draws = rng.bit_generator.state
        clip = None
        for part, images in self.reader.read_parts(record, unique):
            rng.bit_generator.state = draws
            images = self.transform(images, rng)
            if clip is None:
                clip = np.empty((len(unique), *images.shape[1:]), np.uint8)
            clip[part] = images
        return clip if np.array_equal(unique, numbers) else clip[places]


@dataclass(eq=False)
class VideoClips(Dataset):
    """The clips of whole test videos, one an item, video by video: a long video takes no memory.

    Item i is (video, clip, images, error): places of the video in `records` and of the clip in the
    video; uint8 (T, H, W, C); and why the clip cannot be read, and then there are no images, or "".

    Attributes:
        choose: (frames of a video, frames of a clip) -> its clips' frame numbers, (T,) each.
    """

    records: Sequence[VideoRecord]
    reader: Reader
    length: int
    choose: Callable[[int, int], list[np.ndarray]]

    def __post_init__(self):
        self.items = [
            (video, clip, numbers)
            for video, record in enumerate(self.records)
            for clip, numbers in enumerate(self.choose(record.count, self.length))
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[int, int, np.ndarray, str]:
        video, clip, numbers = self.items[index]
        record = self.records[video]
        try:
            return video, clip, self.reader.read(record, numbers), ""
        except DataError as error:
            reason = str(error)
        except MemoryError:
            reason = _no_memory(record)
        return video, clip, np.empty((0, 0, 0, 0), np.uint8), reason


def _no_memory(record: VideoRecord) -> str:
    return f"{record.line}: '{record.folder}': no memory for a clip; use fewer --workers"
