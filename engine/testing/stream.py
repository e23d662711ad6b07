"""A trained network and the videos to test it on, read from frames or from a token cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets import DataError, Split
from datasets.clips import VideoClips
from datasets.fingerprint import describe, fingerprint
from datasets.records import VideoRecord
from datasets.sampling import CLIP_RULES
from datasets.sources.reader import Reader
from engine import UsageError
from engine.checkpoint import BEST, load_checkpoint, was_chosen_by
from engine.config import DataConfig, TestConfig
from engine.data import (
    frame_reader,
    normalization,
    open_split,
    warn_of_other_data,
)
from engine.distributed import choose_device, world_size
from engine.files import run_folder
from engine.loading import ClipViews, frame_views
from engine.speed import InferenceEncoder, choose_speed, fit, views_at_once
from engine.testing.token_order import TimeOrder
from engine.tokens.cache import CachedSubset, TokenCache
from engine.tokens.dataset import find_cache, open_cached_split, start_at_tokens
from models import ArchSpec, VideoNet, create_model, get_arch
from video_transforms import PLAIN, count_crops

CACHED_BATCH = 64  # a cache's views at once


def _as_it_is(encoded: Tensor) -> Tensor:
    return encoded


@dataclass
class Stream:
    """A trained network and the videos to test it on.

    Attributes:
        read: rows of the test list -> their videos' clips, one after the other.
        prepare: a batch of views on the device -> what the network takes.
        batch_size: views at once.
        flip: how training flipped clips.
        chosen_here: whether the checkpoint is the best of epochs that were judged by these videos.
        unscored: folder -> why that video has no scores.
        order: what puts the network's tokens in another order.
        encode: what `prepare` gives -> what the network makes of it below its head.
        data: "trained on", "tested on" -> a line about those data, where that is known.
    """

    spec: ArchSpec
    split: Split
    model: VideoNet
    device: torch.device
    flip: str
    checkpoint: Path
    read: Callable[[Sequence[int]], Iterator[ClipViews]]
    prepare: Callable[[Tensor], Tensor]
    batch_size: int
    chosen_here: bool = False
    unscored: dict[str, str] = field(default_factory=dict)
    order: TimeOrder = field(default_factory=TimeOrder)
    encode: Callable[[Tensor], Tensor] = _as_it_is
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """int64 (videos,)."""
        return np.array([record.label for record in self.split.val], np.int64)


def build_stream(config: TestConfig, arch: str, checkpoint: Path | None) -> Stream:
    """A trained network of architecture `arch` and its test list; by default its best model.

    Raises UsageError if the test's views are not in the cache that `config` names.
    """
    spec = get_arch(arch)
    device = choose_device(config.data.device)
    speed = choose_speed(config.computing, device)
    # data
    cache, split = _open_data(config, spec)
    # model
    model = create_model(spec.name, len(split.class_names))
    if checkpoint is None:
        data = config.data
        checkpoint = run_folder(config.runs, data.dataset, spec.name, data.split) / BEST
    content = load_checkpoint(checkpoint, spec, model, split.class_names)
    _warn_of_other_split(content, checkpoint, config.data)
    model = fit(model.to(device), speed).eval()
    flip = content.get("mirror", PLAIN)  # the reference's files do not say
    # views
    if cache is not None:
        start_at_tokens(model, True, cache)
        subset, step, crops = _cached_views(config, cache, flip, checkpoint)
        read = partial(cached_clips, subset, step, crops)
        prepare, encode, batch_size = Tensor.float, _as_it_is, CACHED_BATCH
        here = cache.metadata["data"]
    else:
        here = fingerprint(split)
        warn_of_other_data(content, here, checkpoint, ("val",))
        reader = frame_reader(spec, split, config.data)
        read = partial(
            frame_clips,
            split.val,
            reader,
            spec,
            CLIP_RULES[config.clips],
            config.ten_crop,
            flip,
            config.data.workers,
        )
        prepare, batch_size = normalization(spec, speed.channels_last), views_at_once(device)
        encode = InferenceEncoder(model, speed, _count_views(config, spec, split, flip))
    return Stream(
        spec=spec,
        split=split,
        model=model,
        device=device,
        flip=flip,
        checkpoint=checkpoint,
        read=read,
        prepare=prepare,
        batch_size=config.batch_size or batch_size,
        chosen_here=was_chosen_by(content, checkpoint, split),
        order=TimeOrder(config.time_order),
        encode=encode,
        data=_describe_data(content.get("fingerprint"), here),
    )


def _open_data(config: TestConfig, spec: ArchSpec) -> tuple[TokenCache | None, Split]:
    if config.cache is None:
        return None, open_split(config.data, spec, ("val",))
    cache = find_cache(config.cache, config.data, spec, ("val",))
    return cache, open_cached_split(config.data, spec, cache, ("val",))


def _describe_data(there: dict | None, here: dict | None) -> dict[str, str]:
    """A line about the data of a checkpoint, and about these, of each that says."""
    lines = {}
    for what, of in (("trained on", there), ("tested on", here)):
        try:
            lines |= {what: describe(of)} if of else {}
        except (AttributeError, KeyError, TypeError, ValueError):
            lines[what] = "the fingerprint cannot be read"
    return lines


def _warn_of_other_split(content: dict, checkpoint: Path, data: DataConfig) -> None:
    for key, asked in (("dataset", data.dataset), ("split", data.split)):
        if content.get(key, asked) != asked:
            print(
                f"warning: {checkpoint} was trained on {key} {content[key]} and is tested on {key} "
                f"{asked}; videos that it has seen may be in the test"
            )


def _count_views(config: TestConfig, spec: ArchSpec, split: Split, flip: str) -> int:
    """Views of this process's share of a test."""
    rule = CLIP_RULES[config.clips]
    clips = sum(len(rule(record.count, spec.frames)) for record in split.val)
    return clips * count_crops(config.ten_crop, flip) // world_size()


def frame_clips(
    records: Sequence[VideoRecord],
    reader: Reader,
    spec: ArchSpec,
    choose: Callable[[int, int], list[np.ndarray]],
    ten_crop: bool,
    flip: str,
    workers: int,
    rows: Sequence[int],
) -> Iterator[ClipViews]:
    """The clips of some rows' videos, by `workers` loader processes.

    `choose` gives the clips of a video: (frames it has, frames of a clip) -> frame numbers.
    """
    videos = VideoClips([records[row] for row in rows], reader, spec.frames, choose)
    return frame_views(videos, rows, spec.input.crop, lambda *_: ten_crop, flip, workers)


def cached_clips(
    subset: CachedSubset, step: int, crops: int, rows: Sequence[int]
) -> Iterator[ClipViews]:
    """The clips of some rows' videos from a cache: every `step`-th view, `crops` of a clip."""
    for row in rows:
        try:
            chosen = subset.tokens[row][::step]
        except DataError as error:  # a damaged file
            yield ClipViews(row, (), str(error))
            continue
        for start in range(0, len(chosen), crops):
            yield ClipViews(row, chosen[start : start + crops])


def _cached_views(
    config: TestConfig, cache: TokenCache, flip: str, checkpoint: Path
) -> tuple[CachedSubset, int, int]:
    """Which subset of a cache has a test's views, every how many-th it takes, crops of a clip."""
    kept = cache.metadata["views"]
    if config.ten_crop and flip != kept["mirror"]:
        raise UsageError(
            f"{checkpoint} flips clips by the rule '{flip}', the views in {cache.folder} are "
            f"flipped by '{kept['mirror']}'; test with --no-ten-crop"
        )
    if config.clips == kept["clips"]:
        if not config.ten_crop:
            return cache.val, kept["crops"], 1
        if kept["crops"] > 1:
            return cache.val, 1, kept["crops"]
    elif config.clips == "single" and not config.ten_crop:
        return cache.central, 1, 1
    crops = "ten crops" if config.ten_crop else "one crop"
    fits = config.ten_crop and config.clips in ("single", kept["clips"])
    way = "give --no-ten-crop, which fits this cache: " if fits else ""
    raise UsageError(
        f"{way}{cache.folder} has the views of --clips {kept['clips']} with {kept['crops']} crops, "
        f"this test wants {config.clips} clips with {crops}; make a cache of those "
        "(--cache DIR), or test without --cache"
    )
