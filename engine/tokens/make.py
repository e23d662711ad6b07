"""A token cache from its flags: the network that makes it, and which process has which videos."""

import time
from dataclasses import asdict
from pathlib import Path

import torch

from datasets import Split
from datasets.fingerprint import fingerprint
from engine import UsageError, distributed
from engine.checkpoint import load_checkpoint
from engine.config import CacheConfig
from engine.data import SUBSETS, augmentation, choose_flip, flow_bound, open_split
from engine.distributed import choose_device
from engine.files import resolve
from engine.speed import choose_speed, fit, views_at_once
from engine.tokens.about import CACHE_FORMAT, list_digest, start_cache
from engine.tokens.cache import (
    cache_name,
    count_views,
    default_folder,
    encoder_entries,
    encoder_hash,
    video_path,
)
from engine.tokens.encode import TokenWriter
from engine.weights.choose import NO_WEIGHTS, find_weights, how_to_get
from engine.weights.load import head_parts, load_weights
from engine.weights.sources import sources_for
from models import ArchSpec, VideoNet, create_model, get_arch
from models.backbones import BACKBONES
from video_transforms import PLAIN, count_crops


def prepare_writer(config: CacheConfig) -> TokenWriter:
    """Checks everything that the arguments name and builds it; writes about.json."""
    spec = get_arch(config.arch)
    device = choose_device(config.data.device)
    speed = choose_speed(config.computing, device)
    augment = augmentation(spec, config.augmentation, config.seed)
    # data, model
    split = open_split(config.data, spec)
    torch.manual_seed(config.seed)
    model = create_model(spec.name, len(split.class_names))
    model.ends_at = config.at
    path, flip = _load(config, model, split)
    # what is cached and how
    crops = count_crops(config.ten_crop, flip)
    metadata = {
        "format": CACHE_FORMAT,
        "tokens": cache_name(spec, config.at),
        "at": config.at,
        "arch": spec.name,
        "frames": spec.frames,
        "dataset": split.dataset,
        "split": split.number,
        "class_names": split.class_names,
        "weights": {"path": path and str(path), "sha256": encoder_hash(model)},
        "views": {
            "train": config.views,
            "seed": config.seed,
            "clips": config.clips,
            "crops": crops,
            "mirror": flip,
        },
        "augmentation": augment and asdict(config.augmentation),
        "amp": speed.amp,
        "numbers": config.numbers,
        "flow_bound": flow_bound(split),
        "data": fingerprint(split) | {"scaled_decoding": config.data.scaled_decoding},
        "fingerprint": {subset: list_digest(getattr(split, subset)) for subset in SUBSETS},
        "records": {
            subset: [[r.folder, r.count, r.label] for r in getattr(split, subset)]
            for subset in SUBSETS
        },
    }
    # the folder
    folder = resolve(config.cache, default_folder(spec, split.dataset, split.number, config.at))
    if distributed.is_main():
        start_cache(folder, metadata)
    distributed.wait_for_all()
    batch_size = config.batch_size or views_at_once(device)
    model = fit(model.to(device), speed).eval()
    return TokenWriter(
        model, split, folder, metadata, device, batch_size, config.data, speed, augment
    )


def _load(config: CacheConfig, model: VideoNet, split: Split) -> tuple[Path | None, str]:
    """Fills the network; returns the file, and how training flips clips.

    Raises UsageError where something that is to be frozen would be new.
    """
    if config.checkpoint is not None:
        path = resolve(config.checkpoint, "")
        content = load_checkpoint(path, model.spec, model, split.class_names)
        if config.flip is None:
            return path, content.get("mirror", PLAIN)
        return path, choose_flip(config.flip, split)
    path = find_weights(model.spec, config.weights, resolve(None, "weights"))
    is_new = any(key in head_parts(model) for key in encoder_entries(model))
    if path is not None:
        report = load_weights(model, path)
        print(f"weights: {path}: {report}")
        is_new = not encoder_entries(model).keys().isdisjoint(report.missing)
    if is_new:
        stage = next(iter(BACKBONES[model.spec.backbone].stages), "STAGE")
        raise UsageError(
            f"the {model.spec.reduction} block of {model.spec.name} is new: published weights do "
            "not hold it, and below a cache it cannot learn. Keep the maps in front of a stage by "
            f"--at {stage}, and it learns from them; or give a trained network by --checkpoint"
        )
    if path is None:
        _check_that_none_is_meant(config, model.spec)
    return path, choose_flip(config.flip, split)


def _check_that_none_is_meant(config: CacheConfig, spec: ArchSpec) -> None:
    """Hours go into a cache: raises UsageError where weights are missing and not refused."""
    if config.weights == NO_WEIGHTS:
        print(f"no weights: these are tokens of a random network, of --seed {config.seed}")
        return
    folder = resolve(None, "weights")
    ways = [how_to_get(source, folder) for source in sources_for(spec)]
    raise UsageError(
        f"no weights of {spec.name} in {folder}. What there is: "
        + "; or ".join([*ways, "--checkpoint FILE; or --weights none, a random network"])
    )


def fill_cache(config: CacheConfig) -> int:
    """Caches this process's videos of its shard, and says how fast."""
    writer = prepare_writer(config)
    todo, there = {}, 0
    for subset in SUBSETS if config.part == "both" else (config.part,):
        share = config.shard.of(range(len(getattr(writer.split, subset))))
        missing = [v for v in share if not video_path(writer.folder, subset, v).exists()]
        missing = distributed.gather(missing)[0]  # while others begin to write
        todo[subset] = missing[distributed.rank() :: distributed.world_size()]
        there += len(share) - len(missing)
    if there:
        print(f"{there} videos are there already")
    print(describe_size(writer, todo))
    start = time.perf_counter()
    writer.run(todo)
    total = time.perf_counter() - start
    videos, clips, forward, total = distributed.sum_over_processes(
        [sum(map(len, todo.values())), writer.clips, writer.forward_seconds, total]
    )
    print(f"{writer.folder}: {videos:.0f} videos, {clips:.0f} clips")
    if clips:
        processes = distributed.world_size()
        print(
            f"{clips * processes / total:.3g} clips/s: {total / processes:.1f} s, "
            f"{total / forward:.3f} times the {forward / processes:.1f} s of the network's forward "
            "passes"
        )
    return 0


def describe_size(writer: TokenWriter, todo: dict[str, list[int]]) -> str:
    """What the files of some videos of each subset will take."""
    with torch.device("meta"), torch.no_grad():
        spec = writer.model.spec
        model = create_model(spec.name, len(writer.split.class_names)).eval()
        model.ends_at = writer.model.ends_at
        numbers = model.encode(torch.empty(1, *spec.clip_shape)).numel()
    views = sum(
        sum(count_views(writer.metadata, subset, getattr(writer.split, subset)[video]))
        for subset, videos in todo.items()
        for video in videos
    )
    size = 2 * numbers * views
    return f"{views} views of {2 * numbers / 1e6:.2f} MB: {size / 1e6:.0f} MB in {writer.folder}"
