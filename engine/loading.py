"""Loader processes within the machine's limits, and the views of test videos in full batches.

A test, a token cache and all else that applies a network read videos clip by clip, so that memory
does not depend on a video's length.
"""

import multiprocessing.queues
import os
import resource
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.clips import VideoClips
from engine import DEADLINE, UsageError
from video_transforms import views

PREFETCH = 2  # items that a loader process is ahead
DESCRIPTORS = 10  # of files, that a loader process needs
SHARED_MEMORY = Path("/dev/shm")
_say = cache(print)  # once: a training has two loaders


class LoaderDeath(UsageError, RuntimeError):
    """A loader process died; torch itself says so by a RuntimeError."""


def is_loader_death(error: Exception) -> bool:
    """Whether it says that a loader process died, also where torch says so in other code."""
    return isinstance(error, LoaderDeath) or "DataLoader worker" in str(error)


class Loader(DataLoader):
    """A DataLoader whose processes deliver what they read, or end the run with the reason.

    Where shared memory or file descriptors are too few for `item_bytes` in each of the items that
    are under way, items travel through pipes, which is slower; that is printed. Iterating raises
    LoaderDeath if a process dies or reads an item for more than DEADLINE seconds.

    Args:
        item_bytes: about what an item (with a batch sampler: a batch) takes.
        start: called in each new process with its number.
        persistent: keep the processes for the next epoch.
        options: of DataLoader.
    """

    def __init__(
        self,
        dataset: Dataset,
        workers: int,
        item_bytes: int,
        start: Callable[[int], None] | None = None,
        persistent: bool = False,
        **options,
    ):
        workers, piped = _within_limits(workers, item_bytes)
        if piped:
            options["collate_fn"] = _stack if "batch_sampler" in options else _as_it_is
        super().__init__(
            _Guarded(dataset) if workers else dataset,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=persistent and workers > 0,
            worker_init_fn=partial(_start_process, start),
            **options,
        )
        self.piped = piped

    def __iter__(self) -> Iterator:
        try:
            for item in super().__iter__():
                yield _to_tensors(item) if self.piped else item
        except RuntimeError as error:  # torch's one type for whatever happens to a process
            if not is_loader_death(error):
                raise
            raise LoaderDeath(
                f"the loader processes failed: {str(error).splitlines()[0]}; try fewer --workers "
                "(0: none), they may lack memory"
            ) from None


class _Guarded(Dataset):
    """A dataset whose loader process ends if reading an item takes longer than DEADLINE.

    The run notices a process that ended within seconds. (DataLoader's own timeout would not let it
    notice one that died before that timeout.)
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)

    def __getitem__(self, index: int) -> tuple:
        timer = threading.Timer(DEADLINE, _fail_to_deliver, (f"item {index} takes too long", None))
        timer.daemon = True
        timer.start()
        try:
            return self.dataset[index]
        finally:
            timer.cancel()


def _within_limits(workers: int, item_bytes: int) -> tuple[int, bool]:
    """How many loader processes can be, and whether they must do without shared memory."""
    if workers == 0:
        return 0, False
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # such processes on this machine
    items = workers * PREFETCH + 2
    # file descriptors
    free = _free_descriptors(DESCRIPTORS * workers + 4 * items)
    if free < DESCRIPTORS * workers:
        _say(f"note: no loader processes, too few file descriptors are free ({free}): ulimit -n")
        return 0, False
    if free < DESCRIPTORS * workers + 4 * items:
        _say(f"note: clips travel through pipes, {free} file descriptors are free: ulimit -n")
        return workers, True
    # shared memory
    if SHARED_MEMORY.is_dir():
        state = os.statvfs(SHARED_MEMORY)
        room, needed = state.f_bavail * state.f_frsize, here * items * item_bytes
        if room < needed:
            _say(
                f"note: clips travel through pipes, {SHARED_MEMORY} has {room / 1e6:.0f} MB free "
                f"and {needed / 1e6:.0f} are needed (docker run --shm-size)"
            )
            return workers, True
    return workers, False


def _free_descriptors(wanted: int) -> int:
    """File descriptors that can still be opened; the limit is raised where that is allowed."""
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft - used < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        most = used + wanted if hard == resource.RLIM_INFINITY else min(hard, used + wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft - used


def _start_process(start: Callable[[int], None] | None, number: int) -> None:
    # An item that cannot be handed over would be lost, and the run would wait for it.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_fail_to_deliver)
    if start:
        start(number)


def _fail_to_deliver(error: Exception | str, item: object) -> None:
    print(f"error: a loader process cannot deliver: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _as_it_is(item: tuple) -> tuple:
    """An item in the form that travels through a pipe: arrays, not tensors."""
    return tuple(part.numpy() if isinstance(part, Tensor) else part for part in item)


def _stack(items: list[tuple]) -> tuple:
    """A batch in that form."""
    return tuple(np.stack(parts) for parts in zip(*map(_as_it_is, items), strict=True))


def _to_tensors(item: tuple) -> tuple:
    return tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in item)


def on_device(
    batches: Iterable[Sequence[Tensor]], device: torch.device
) -> Iterator[Sequence[Tensor]]:
    """The batches on a device, none before it is asked for.

    A GPU copies a batch, from pinned memory, on a stream of its own while it computes with the one
    before; a loop that waits for no result asks for it early enough.
    """
    if device.type != "cuda":
        for batch in batches:
            yield [part.to(device) for part in batch]
        return
    copies, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            moved = [part.to(device, non_blocking=True) for part in batch]
        computing.wait_stream(copies)
        for part in moved:
            part.record_stream(computing)  # else its memory could be written again too early
        yield moved


@dataclass(frozen=True)
class ClipViews:
    """A clip of a test video as the network is to see it.

    Attributes:
        row: the video's place in its list.
        views: the clip's crops: uint8 (T, H, W, C), or tokens (...).
        error: why the clip cannot be read, and then there are no views; or "".
    """

    row: int
    views: Sequence[np.ndarray]
    error: str = ""


def frame_views(
    videos: VideoClips,
    rows: Sequence[int],
    crop: int,
    ten_crop: Callable[[int, int], bool],
    flip: str,
    workers: int,
) -> Iterator[ClipViews]:
    """The clips of videos, by `workers` loader processes.

    Args:
        rows: the videos' places in their list.
        crop: pixels of a view.
        ten_crop: (video, clip) -> whether it is shown in ten crops, or in the central one.
        flip: see `video_transforms.views`.
    """
    item_bytes = videos.length * int(np.prod(videos.reader.image_shape))
    loader = Loader(videos, workers, item_bytes, batch_size=None)
    for video, clip, images, error in loader:
        if error:
            yield ClipViews(rows[video], (), error)
            continue
        shown = views(images.numpy(), crop, ten_crop(video, clip), flip)
        yield ClipViews(rows[video], list(shown))


def in_batches(
    clips: Iterable[ClipViews],
    size: int,
    apply: Callable[[np.ndarray, list[int]], np.ndarray],
) -> Iterator[tuple[ClipViews, np.ndarray]]:
    """Each clip with what `apply` gives for its views, (views, ...), in the order they come.

    Batches hold views of several clips and videos. All are full, the last one with repeated views:
    a network's rounding depends on the size of a batch, but not on what else is in it.

    Args:
        apply: a batch of views (N, ...) and their videos' rows -> (N, ...).
    """
    waiting: deque[tuple[ClipViews, list]] = deque()  # clips, and the results that they have
    batch: list[np.ndarray] = []
    owners: list[tuple[ClipViews, list]] = []

    def run() -> None:
        rows = [clip.row for clip, _ in owners]
        padding = size - len(batch)
        results = apply(np.stack(batch + batch[-1:] * padding), rows + rows[-1:] * padding)
        for (_, own), result in zip(owners, results, strict=False):
            own.append(result)
        batch.clear()
        owners.clear()

    def finished() -> Iterator[tuple[ClipViews, np.ndarray]]:
        while waiting and len(waiting[0][1]) == len(waiting[0][0].views):
            clip, own = waiting.popleft()
            yield clip, np.stack(own) if own else np.empty(0, np.float32)

    for clip in clips:
        waiting.append((clip, []))
        for view in clip.views:
            batch.append(view)
            owners.append(waiting[-1])
            if len(batch) == size:
                run()
        yield from finished()
    if batch:
        run()
    yield from finished()
