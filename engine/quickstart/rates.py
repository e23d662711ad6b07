"""How long the steps will take: frames counted in the files' headers, and rates measured here."""

import itertools
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from datasets.files import DataError
from datasets.flow.engines import create_flow
from datasets.preparation import Preparation
from datasets.records import VideoRecord
from datasets.sampling import CLIP_RULES
from datasets.sources.videos import read_frames
from engine.ablation.heads import Setting, train_head
from engine.config import SpeedConfig
from engine.distributed import choose_device
from engine.speed import choose_speed, fit, views_at_once
from engine.speed.tuning import encode
from engine.tokens.cache import CachedSubset
from models import create_model, get_arch

MOST_OPENED = 100  # videos whose frames are counted
CHECKED_FRAMES = 10  # that the doctor opens of a video, about
TRIED_FRAMES, TRIED_VIDEOS, TRIED_EPOCHS = 32, 16, 3


@dataclass(frozen=True)
class Rates:
    """Seconds on this machine: a frame prepared by one process, a clip through the backbone, a
    video in an epoch of the head's training; `start` is that of a command."""

    frame: float
    clip: float
    video: float
    start: float = 6.0


@dataclass(frozen=True)
class Work:
    """What there is to do; its methods estimate minutes.

    Attributes:
        videos, train, val: numbers of all, of the training's, of the test's.
        frames: mean number a video.
        workers: processes that prepare and check.
    """

    videos: int
    train: int
    val: int
    frames: float
    workers: int
    rates: Rates

    @property
    def start(self) -> float:
        """Of a command that does little."""
        return self.rates.start / 60

    def preparing(self) -> float:
        return self.start + self.videos * self.frames * self.rates.frame / self.workers / 60

    def checking(self) -> float:
        return self.start + self.videos * CHECKED_FRAMES * self.rates.frame / self.workers / 60

    def caching(self, length: int, views: int) -> float:
        """`views` clips of `length` frames of each training video, all and one of a test video."""
        tested = len(CLIP_RULES["multi"](max(1, round(self.frames)), length)) + 1
        return self.start + (self.train * views + self.val * tested) * self.rates.clip / 60

    def tuning(self, epochs: int, folds: int) -> float:
        """`epochs` of all settings together, each with all but one of the folds."""
        return self.start + epochs * (folds - 1) * self.train * self.rates.video / 60

    def training(self, epochs: int) -> float:
        return self.start + epochs * (self.train + self.val / 3) * self.rates.video / 60


def mean_frames(root: Path, videos: Sequence[str]) -> float:
    """Mean number of frames of the videos, as the headers of some of them say; 0 if none does."""
    counts = []
    for video in videos[:: max(1, len(videos) // MOST_OPENED)]:
        try:
            with av.open(str(root / video)) as container:
                stream = container.streams.video[0]
                seconds = stream.duration and float(stream.duration * stream.time_base)
                seconds = seconds or (container.duration or 0) / av.time_base
                counts.append(stream.frames or seconds * float(stream.average_rate or 0))
        except (av.FFmpegError, OSError, IndexError):
            continue
    return float(np.mean([count for count in counts if count] or [0.0]))


def measure_rates(
    root: Path, videos: Sequence[str], flow: str | None, arch: str, speed: str
) -> Rates:
    """The rates of these videos and this network; in a process of its own, whose memory is freed.

    Raises DataError if none of the first videos can be read.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_measure, root, videos, flow, arch, speed).result()


def _measure(root: Path, videos: Sequence[str], flow: str | None, arch: str, speed: str) -> Rates:
    return Rates(_frame_seconds(root, videos, flow), *_network_seconds(arch, speed))


def _frame_seconds(root: Path, videos: Sequence[str], flow: str | None) -> float:
    size = Preparation.width, Preparation.height
    cv2.setNumThreads(1)
    for video in videos[:10]:
        start = time.perf_counter()
        try:
            frames = [*itertools.islice(read_frames(root / video, size), TRIED_FRAMES)]
        except DataError:
            continue
        for frame in frames:
            cv2.imencode(".jpg", frame)
        seconds = (time.perf_counter() - start) / len(frames)
        if flow and len(frames) > 2:
            engine = create_flow(flow)
            start = time.perf_counter()
            engine(np.stack(frames[:3])[..., ::-1])
            seconds += (time.perf_counter() - start) / 2
        return seconds
    raise DataError(f"none of the first videos in {root} can be read, {videos[0]} and others")


def _network_seconds(arch: str, preset: str) -> tuple[float, float]:
    """Of a clip through the backbone, and of a video in an epoch of the head's training."""
    spec, device = get_arch(arch), choose_device(None)
    speed = choose_speed(SpeedConfig(preset), device)
    model = fit(create_model(spec.name, 2).to(device), speed).eval()
    clips = torch.zeros(views_at_once(device), *spec.clip_shape, device=device)
    with torch.inference_mode():
        for _ in range(2):  # the first allocates
            start = time.perf_counter()
            tokens = encode(model, clips, speed).cpu().numpy()
            clip = (time.perf_counter() - start) / len(clips)
    del model, clips
    records = [VideoRecord(str(number), spec.frames, 0, "") for number in range(TRIED_VIDEOS)]
    views = [tokens[:1].astype(np.float16)] * TRIED_VIDEOS
    subset = CachedSubset(records, views, np.zeros(TRIED_VIDEOS, np.int64))
    spent = []
    for epochs in (1, 1 + TRIED_EPOCHS):
        start = time.perf_counter()
        setting = Setting("adamw", 1e-4, 1e-3, epochs)
        train_head(spec, 2, subset, setting, TRIED_VIDEOS, seed=0, device=device)
        spent.append(time.perf_counter() - start)
    return clip, max(1e-5, spent[1] - spent[0]) / (TRIED_EPOCHS * TRIED_VIDEOS)
