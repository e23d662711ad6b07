"""Fills a token cache: every view of every video goes once through a network's frozen part."""

import itertools
import math
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
from datasets.clips import ClipDataset, VideoClips
from datasets.records import VideoRecord
from datasets.sampling import CLIP_RULES, single_clip
from datasets.sources.reader import Reader
from engine import distributed
from engine.config import DataConfig
from engine.data import frame_reader, normalization, training_transform
from engine.loading import ClipViews, Loader, frame_views, in_batches
from engine.speed import InferenceEncoder, Speed
from engine.tokens.arrays import store_tokens
from engine.tokens.cache import count_views, video_path
from models import VideoNet
from video_transforms import ClipAugmentation

LINE_SECONDS = 10.0  # from one line to the next where no terminal shows a bar


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
    """Item i: the i-th of some training videos in epochs 0..`number`-1, a uint8 tensor
    (number, T, H, W, C), augmented as in those epochs.

    `clips` are the arguments of ClipDataset, that makes them.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        videos: Sequence[int],
        number: int,
        reader: Reader,
        augment: ClipAugmentation | None = None,
        **clips,
    ):
        self.videos, self.augment, self.epochs = videos, augment, []
        reader = RememberingReader(reader)
        for epoch in range(number):
            dataset = ClipDataset(records, reader, training=True, **clips)
            dataset.set_epoch(epoch)
            self.epochs.append(dataset)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, place: int) -> tuple[Tensor]:
        video = self.videos[place]
        views = [dataset[video][0] for dataset in self.epochs]
        if self.augment is not None:
            views = [self.augment(view, epoch, video) for epoch, view in enumerate(views)]
        return (torch.cat(views),)


@dataclass
class TokenWriter:
    """A network whose tokens are to be kept, and what is measured while that is done."""

    model: VideoNet
    split: Split
    folder: Path
    metadata: dict
    device: torch.device
    batch_size: int
    data: DataConfig
    speed: Speed
    augment: ClipAugmentation | None = None
    clips: int = 0
    forward_seconds: float = 0.0

    def __post_init__(self):
        self.prepare = normalization(self.model.spec, self.speed.channels_last)
        self.encoder = InferenceEncoder(self.model, self.speed)

    @torch.inference_mode()
    def encode(self, views: np.ndarray, rows: list[int]) -> np.ndarray:
        """uint8 views (N, T, H, W, C) -> what is kept of them, float32 (N, ...)."""
        inputs = self.prepare(torch.from_numpy(views).to(self.device))
        start = time.perf_counter()
        encoded = self.encoder(inputs).cpu().numpy()
        self.forward_seconds += time.perf_counter() - start
        return encoded

    def views_of(self, subset: str, videos: Sequence[int]) -> Iterator[ClipViews]:
        """The clips of some videos of a subset, video by video."""
        return self._training_views(videos) if subset == "train" else self._test_views(videos)

    def _training_views(self, videos: Sequence[int]) -> Iterator[ClipViews]:
        spec, kept = self.model.spec, self.metadata["views"]
        dataset = TrainingViews(
            self.split.train,
            videos,
            kept["train"],
            frame_reader(spec, self.split, self.data),
            self.augment,
            length=spec.frames,
            transform=training_transform(spec, kept["mirror"]),
            seed=kept["seed"],
        )
        item_bytes = kept["train"] * math.prod(spec.clip_shape)
        loader = Loader(dataset, self.data.workers, item_bytes, batch_size=None)
        for video, (clips,) in zip(videos, loader, strict=True):
            yield ClipViews(video, list(clips.numpy()))

    def _test_views(self, videos: Sequence[int]) -> Iterator[ClipViews]:
        """The test's, and the central clip's centre after them where it is not their first."""
        spec, kept = self.model.spec, self.metadata["views"]
        rule, has_central = CLIP_RULES[kept["clips"]], kept["clips"] != "single"
        records = [self.split.val[video] for video in videos]

        def choose(count: int, length: int) -> list[np.ndarray]:
            return [*rule(count, length), *(single_clip(count, length) if has_central else [])]

        def ten_crop(video: int, clip: int) -> bool:
            return kept["crops"] > 1 and clip < len(rule(records[video].count, spec.frames))

        clips = VideoClips(records, frame_reader(spec, self.split, self.data), spec.frames, choose)
        yield from frame_views(
            clips, videos, spec.input.crop, ten_crop, kept["mirror"], self.data.workers
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
        self.encoder.views = sum(clips.values())
        silent = None if distributed.is_main() else True  # None: where there is no terminal
        name = self.folder.name
        with tqdm(
            total=sum(clips.values()), desc=name, unit="clip", dynamic_ncols=True, disable=silent
        ) as bar:
            start = said = time.perf_counter()
            for subset, videos in todo.items():
                encoded = in_batches(self.views_of(subset, videos), self.batch_size, self.encode)
                for video, found in itertools.groupby(encoded, key=lambda pair: pair[0].row):
                    parts = []
                    for clip, tokens in found:
                        if clip.error:
                            raise DataError(clip.error)
                        parts.append(tokens)
                        self.clips += len(tokens)
                        bar.update(len(tokens))
                    tokens = np.concatenate(parts)
                    assert len(tokens) == clips[subset, video]
                    path = video_path(self.folder, subset, video)
                    store_tokens(path, tokens, self.metadata["numbers"])
                    now = time.perf_counter()
                    if bar.disable and silent is None and now - said >= LINE_SECONDS:
                        said, left = now, (now - start) * (bar.total / self.clips - 1)
                        line = f"{name}: {self.clips} of {bar.total} clips, {left:.0f} s left"
                        print(line, flush=True)
