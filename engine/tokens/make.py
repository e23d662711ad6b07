"""Arguments -> a cache and the network that fills it; how a cache's videos are shared out."""

import argparse
import time
from pathlib import Path

import torch

from datasets import Split
from datasets.fingerprint import fingerprint as data_fingerprint
from datasets.prepare.collect import Shard
from engine import UsageError, distributed
from engine.checkpoint import load_checkpoint
from engine.data import choose_flip, flow_bound, open_split
from engine.distributed import choose_device
from engine.files import resolve
from engine.tokens.cache import (
    FORMAT,
    PARTS,
    cache_name,
    default_folder,
    encoder_entries,
    encoder_hash,
    fingerprint,
    start_cache,
    video_path,
)
from engine.tokens.encode import Caching
from engine.weights.choose import NO_WEIGHTS, find_weights, how_to_get
from engine.weights.load import load_weights
from engine.weights.sources import sources_for
from models import ArchSpec, VideoNet, create_model, get_arch
from video_transforms import NO_FLIP, PLAIN


def prepare_caching(args: argparse.Namespace) -> Caching:
    """Checks everything that the arguments name and builds it; writes about.json."""
    spec = get_arch(args.arch)
    device = choose_device(args.device)
    split = open_split(args, spec, PARTS)
    torch.manual_seed(args.seed)
    model = create_model(spec.name, len(split.class_names))
    path, flip = _load(args, model, split)
    crops = (5 if flip == NO_FLIP else 10) if args.ten_crop else 1
    about = {
        "format": FORMAT,
        "tokens": cache_name(spec),
        "arch": spec.name,
        "frames": spec.frames,
        "dataset": split.dataset,
        "split": split.number,
        "class_names": split.class_names,
        "weights": {"path": path and str(path), "sha256": encoder_hash(model)},
        "views": {
            "train": args.views,
            "seed": args.seed,
            "clips": args.clips,
            "crops": crops,
            "mirror": flip,
        },
        "flow_bound": flow_bound(split),
        "data": data_fingerprint(split) | {"scaled_decoding": args.scaled_decoding},
        "fingerprint": {part: fingerprint(getattr(split, part)) for part in PARTS},
        "records": {
            part: [[r.folder, r.count, r.label] for r in getattr(split, part)] for part in PARTS
        },
    }
    folder = resolve(args.cache, default_folder(spec, split.dataset, split.number))
    if distributed.is_main():
        start_cache(folder, about)
    distributed.wait_for_all()
    batch_size = args.batch_size or (10 if device.type == "cuda" else 2)
    model = model.to(device).eval()
    scaled = args.scaled_decoding
    return Caching(model, split, folder, about, device, batch_size, args.workers, scaled)


def _load(args: argparse.Namespace, model: VideoNet, split: Split) -> tuple[Path | None, str]:
    """Fills the network; returns the file, and how training mirrors clips.

    Raises UsageError where something that is to be frozen would be new.
    """
    if args.checkpoint is not None:
        path = resolve(args.checkpoint, "")
        content = load_checkpoint(path, model.spec, model, split.class_names)
        if args.flip is None:
            return path, content.get("mirror", PLAIN)
        return path, choose_flip(args.flip, split)
    path = find_weights(model.spec, args.weights, resolve(None, "weights"))
    is_new = model.spec.reduction is not None
    if path is not None:
        report = load_weights(model, path)
        print(f"weights: {path}: {report}")
        is_new = not encoder_entries(model).keys().isdisjoint(report.missing)
    if is_new:
        raise UsageError(
            f"the {model.spec.reduction} block of {model.spec.name} is new: published weights do "
            "not hold it, and behind a cache it cannot learn. Give a trained network by "
            "--checkpoint, or cache an architecture without FRAB or FRMB"
        )
    if path is None:
        _check_that_none_is_meant(args, model.spec)
    return path, choose_flip(args.flip, split)


def _check_that_none_is_meant(args: argparse.Namespace, spec: ArchSpec) -> None:
    """Hours go into a cache: raises UsageError where weights are missing and not refused."""
    if args.weights == NO_WEIGHTS:
        print(f"no weights: these are tokens of a random network, of --seed {args.seed}")
        return
    folder = resolve(None, "weights")
    ways = [how_to_get(source, folder) for source in sources_for(spec)]
    raise UsageError(
        f"no weights of {spec.name} in {folder}. What there is: "
        + "; or ".join([*ways, "--checkpoint FILE; or --weights none, a random network"])
    )


def fill_cache(args: argparse.Namespace, shard: Shard) -> int:
    """Caches this process's videos of a shard, and says how fast."""
    caching = prepare_caching(args)
    todo, there = {}, 0
    for part in PARTS if args.part == "both" else (args.part,):
        share = shard.of(range(len(getattr(caching.split, part))))
        missing = [v for v in share if not video_path(caching.folder, part, v).exists()]
        missing = distributed.gather(missing)[0]  # while others begin to write
        todo[part] = missing[distributed.rank() :: distributed.world_size()]
        there += len(share) - len(missing)
    if there:
        print(f"{there} videos are there already")
    start = time.perf_counter()
    caching.run(todo)
    total = time.perf_counter() - start
    videos, clips, forward, total = distributed.sum_over_processes(
        [sum(map(len, todo.values())), caching.clips, caching.forward_seconds, total]
    )
    print(f"{caching.folder}: {videos:.0f} videos, {clips:.0f} clips")
    if clips:
        processes = distributed.world_size()
        print(
            f"{clips * processes / total:.3g} clips/s: {total / processes:.1f} s, "
            f"{total / forward:.3f} times the {forward / processes:.1f} s of the network's forward "
            "passes"
        )
    return 0
