"""Fills a token cache: every view of every video goes once through a network's frozen part."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets import DataError, Split
from datasets.clips import ClipDataset, VideoDataset
from datasets.records import VideoRecord
from datasets.sampling import CLIP_RULES, single_clip
from datasets.sources.reader import Reader
from engine import distributed
from engine.data import frame_reader, normalization, training_transform, video_loader
from engine.tokens.arrays import store_tokens
from engine.tokens.cache import count_views, video_path
from models import VideoNet
from video_transforms import views


class RememberingReader(Reader):
    """Reads an image once for as long as the same video is asked for."""

    def __init__(self, reader: Reader):
        super().__init__(reader.modality, reader.size)
        self.reader = reader
        self.record: VideoRecord | None = None
        self.images: dict[int, np.ndarray] = {}

    def write(
        self, record: VideoRecord, numbers: Iterable[int], slots: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        if record != self.record:
            self.record, self.images = record, {}
        numbers = list(numbers)
        missing = [number for number in numbers if number not in self.images]
        if missing:
            read = self.reader.read_unique(record, np.array(missing))
            self.images |= zip(missing, read, strict=True)
        for number, slot in zip(numbers, slots, strict=False):
            slot[...] = self.images[number]
            yield slot


class TrainingViews(Dataset):
    """Item i: the i-th of some training videos in epochs 0..`number`-1, uint8 (number, T, H, W, C).

    `clips` are the arguments of ClipDataset, that makes them.
    """

    def __init__(
        self, records: Sequence[VideoRecord], videos: Sequence[int], number: int, reader, **clips
    ):
        self.videos, self.epochs = videos, []
        reader = RememberingReader(reader)
        for epoch in range(number):
            dataset = ClipDataset(records, reader, training=True, **clips)
            dataset.set_epoch(epoch)
            self.epochs.append(dataset)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, place: int) -> Tensor:
        return torch.cat([dataset[self.videos[place]][0] for dataset in self.epochs])


@dataclass
class TokenWriter:
    """A network whose tokens are to be kept, and what is measured while that is done."""

    model: VideoNet
    split: Split
    folder: Path
    metadata: dict
    device: torch.device
    batch_size: int
    workers: int
    scaled: bool = False
    clips: int = 0
    forward_seconds: float = 0.0

    @torch.inference_mode()
    def encode(self, clips: Iterable[np.ndarray], bar: tqdm) -> np.ndarray:
        """uint8 views (T, H, W, C) -> what is kept of them, float32 (views, ...)."""
        encoded, clips = [], iter(clips)
        normalize = normalization(self.model.spec)
        while batch := list(itertools.islice(clips, self.batch_size)):
            inputs = normalize(torch.from_numpy(np.stack(batch)).to(self.device))
            start = time.perf_counter()
            encoded.append(self.model.encode(inputs).float().cpu().numpy())
            self.forward_seconds += time.perf_counter() - start
            self.clips += len(batch)
            bar.update(len(batch))
        return np.concatenate(encoded)

    def views_of(self, subset: str, videos: Sequence[int]) -> Iterator[Iterable[np.ndarray]]:
        """The views of some videos of a subset, uint8 (T, H, W, C) each, video by video."""
        return self._training_views(videos) if subset == "train" else self._test_views(videos)

    def _training_views(self, videos: Sequence[int]) -> Iterator[Iterable[np.ndarray]]:
        spec, kept = self.model.spec, self.metadata["views"]
        dataset = TrainingViews(
            self.split.train,
            videos,
            kept["train"],
            frame_reader(spec, self.split, self.scaled),
            length=spec.frames,
            transform=training_transform(spec, kept["mirror"]),
            seed=kept["seed"],
        )
        for clips in video_loader(dataset, self.workers):
            yield clips.numpy()

    def _test_views(self, videos: Sequence[int]) -> Iterator[Iterable[np.ndarray]]:
        """The test's, and the central clip's centre after them where it is not their first."""
        spec, kept = self.model.spec, self.metadata["views"]
        size = spec.input.crop
        has_central = kept["clips"] != "single"

        def choose(count: int, length: int) -> list[np.ndarray]:
            central = single_clip(count, length) if has_central else []
            return [*CLIP_RULES[kept["clips"]](count, length), *central]

        records = [self.split.val[video] for video in videos]
        reader = frame_reader(spec, self.split, self.scaled)
        dataset = VideoDataset(records, reader, spec.frames, choose)
        for images, indices, error in video_loader(dataset, self.workers):
            if error:
                raise DataError(error)
            images, clips = images.numpy(), [clip.numpy() for clip in indices]
            number = len(clips) - has_central
            yield itertools.chain(
                views(images, clips[:number], size, kept["crops"] > 1, kept["mirror"]),
                views(images, clips[number:], size, False, kept["mirror"]),
            )

    def run(self, todo: dict[str, list[int]]) -> None:
        """Encodes and stores the videos `todo` of each subset."""
        clips = {
            (subset, video): sum(
                count_views(self.metadata, subset, getattr(self.split, subset)[video])
            )
            for subset, videos in todo.items()
            for video in videos
        }
        silent = None if distributed.is_main() else True  # None: where there is no terminal
        name = self.folder.name
        with tqdm(
            total=sum(clips.values()), desc=name, unit="clip", dynamic_ncols=True, disable=silent
        ) as bar:
            for subset, videos in todo.items():
                for video, shown in zip(videos, self.views_of(subset, videos), strict=True):
                    tokens = self.encode(shown, bar)
                    assert len(tokens) == clips[subset, video]
                    store_tokens(video_path(self.folder, subset, video), tokens)
