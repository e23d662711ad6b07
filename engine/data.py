"""Arguments -> what a training or a test needs: data, network, device, transforms."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from datasets import Split, create_dataset
from datasets.clips import ClipDataset
from datasets.fingerprint import describe, fingerprint
from datasets.samplers import TrainingBatches, ValidationBatches
from datasets.sources.choose import PACKED, VIDEOS
from datasets.sources.packed import pack_name
from datasets.sources.reader import Reader
from engine import distributed
from engine.checkpoint import BEST, load_checkpoint
from engine.data_check import check_before_training, warn_of_other_data
from engine.distributed import choose_device
from engine.files import resolve, run_folder
from engine.rate import Gauge
from engine.testing.token_order import TimeOrder
from engine.tokens.cache import TokenCache
from engine.training.build import prepare_model
from engine.training.signals import ignore_in_worker
from engine.weights.choose import start_from_weights
from models import ArchSpec, VideoNet, create_model, get_arch
from video_transforms import (
    INVERTED,
    NO_FLIP,
    PLAIN,
    CenterCrop,
    Compose,
    MultiScaleCornerCrop,
    Normalize,
    RandomHorizontalFlip,
)


@dataclass
class Training:
    """A training before its first step."""

    spec: ArchSpec
    split: Split
    model: VideoNet
    device: torch.device
    normalize: Normalize
    train_loader: DataLoader
    val_loader: DataLoader
    flip: str
    folder: Path
    fingerprint: dict
    gauge: Gauge | None = None
    cache: TokenCache | None = None

    def about(self) -> dict:
        """What a checkpoint says about its data."""
        return {
            "dataset": self.split.dataset,
            "split": self.split.number,
            "class_names": self.split.class_names,
            "flow_bound": self.cache.about["flow_bound"] if self.cache else flow_bound(self.split),
            "mirror": self.flip,
            "fingerprint": self.fingerprint,
        }


@dataclass
class Stream:
    """A trained network and the videos to test it on.

    Attributes:
        unscored: folder -> why that video has no scores.
        order: what puts the network's tokens in another order.
    """

    spec: ArchSpec
    split: Split
    model: VideoNet
    device: torch.device
    normalize: Normalize
    flip: str
    checkpoint: Path
    unscored: dict[str, str] = field(default_factory=dict)
    cache: TokenCache | None = None
    order: TimeOrder = field(default_factory=TimeOrder)


def open_split(args: argparse.Namespace, spec: ArchSpec, parts: tuple[str, ...]) -> Split:
    """The lists that the arguments name, checked against the disk."""
    return create_dataset(
        args.dataset,
        args.split,
        spec.modality,
        resolve(args.settings, "datasets/settings"),
        data_folder(args),
        parts,
        spec.input.resize,
        args.source,
    )


def data_folder(args: argparse.Namespace) -> Path:
    """The folder of frames, packs or videos: a given one, or the dataset's own."""
    videos = resolve(None, f"datasets/{args.dataset}_videos")
    frames = resolve(args.frames, f"datasets/{args.dataset}_frames")
    return videos if args.frames is None and not frames.exists() and videos.exists() else frames


def reads_folders(args: argparse.Namespace, spec: ArchSpec) -> bool:
    """Whether images come from frame folders, as far as can be told before the lists are read."""
    root = data_folder(args)
    packs = [root / pack_name(spec.modality, size) for size in (spec.input.resize, None)]
    packed = args.source == PACKED or args.source is None and any(p.exists() for p in packs)
    videos = args.source == VIDEOS or args.frames is None and root.name.endswith("_videos")
    return not packed and not videos


def normalization(spec: ArchSpec) -> Normalize:
    return Normalize(spec.input.value_range, spec.input.mean, spec.input.std)


def frame_reader(spec: ArchSpec, split: Split, scaled: bool = False) -> Reader:
    """Reads the split's images as the architecture wants them, and says from where."""
    print(f"reading {split.source}" + (", decoded at a fraction of its size" if scaled else ""))
    return split.source.reader(spec.input.resize, scaled)


def flow_bound(split: Split) -> float | None:
    """The displacement, in pixels, that its flow images reach to, where that is recorded."""
    preparation = split.source.preparation() if split.modality == "flow" else None
    return preparation.bound if preparation else None


def choose_flip(flip: bool | None, split: Split) -> str:
    """How training mirrors clips: as the user asked, or as the dataset allows."""
    if not (split.may_flip if flip is None else flip):
        return NO_FLIP
    return INVERTED if split.modality == "flow" else PLAIN


def training_transform(spec: ArchSpec, flip: str) -> Compose:
    """What training does to a video's images: a random crop, and perhaps a mirror image."""
    return Compose(MultiScaleCornerCrop(spec.input.crop), RandomHorizontalFlip(flip))


def build_training(args: argparse.Namespace) -> Training:
    """Checks everything that the arguments name, in the order of its cost, and builds it."""
    spec = get_arch(args.arch)
    device = choose_device(args.device)
    if not args.skip_doctor and reads_folders(args, spec):
        check_before_training(args, spec, data_folder(args))
    split = open_split(args, spec, ("train", "val"))
    data = fingerprint(split)
    print(describe(data))
    torch.manual_seed(args.seed)
    model = create_model(spec.name, len(split.class_names))
    if not (args.resume or args.evaluate):  # a checkpoint brings all weights
        print(start_from_weights(model, args.weights, resolve(None, "weights")))
    reader = frame_reader(spec, split, args.scaled_decoding)
    size = spec.input.crop
    rule = choose_flip(args.flip, split)
    augment = training_transform(spec, rule)
    clips = {
        "length": spec.frames,
        "segments": args.num_seg,
        "seed": args.seed,
        "max_bad": args.max_bad if args.on_bad_sample == "skip" else None,
    }
    train = ClipDataset(split.train, reader, transform=augment, training=True, **clips)
    if args.evaluate:
        clips["max_bad"] = None  # a test replaces nothing
    val = ClipDataset(split.val, reader, transform=CenterCrop(size), training=False, **clips)
    place = (distributed.rank(), distributed.world_size())
    train_batches = TrainingBatches(len(train), args.batch_size, args.seed, *place)
    val_batches = ValidationBatches(len(val), args.batch_size, *place)
    return Training(
        spec=spec,
        split=split,
        model=prepare_model(model.to(device), args, device),
        device=device,
        normalize=normalization(spec),
        train_loader=_loader(train, train_batches, args.workers, device),
        val_loader=_loader(val, val_batches, args.workers, device),
        flip=rule,
        folder=run_folder(args.output, args.dataset, spec.name, args.split),
        fingerprint=data,
    )


def _loader(
    dataset: ClipDataset, batches: Sampler[list[int]], workers: int, device: torch.device
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator(),  # leaves the training's random numbers alone
    )


def build_stream(
    args: argparse.Namespace, arch: str, checkpoint: Path | None, given: Split | None = None
) -> Stream:
    """A trained network of architecture `arch` and its test list; by default its best model.

    A `given` list is not compared with the data that the network was trained on.
    """
    spec = get_arch(arch)
    device = choose_device(args.device)
    split = given or open_split(args, spec, ("val",))
    model = create_model(spec.name, len(split.class_names))
    if checkpoint is None:
        checkpoint = run_folder(args.runs, args.dataset, spec.name, args.split) / BEST
    content = load_checkpoint(checkpoint, spec, model, split.class_names)
    for key, asked in (("dataset", args.dataset), ("split", args.split)):
        if content.get(key, asked) != asked:
            print(
                f"warning: {checkpoint} was trained on {key} {content[key]} and is tested on {key} "
                f"{asked}; videos that it has seen may be in the test"
            )
    if given is None:
        warn_of_other_data(content, fingerprint(split), checkpoint, ("val",))
    return Stream(
        spec=spec,
        split=split,
        model=model.to(device).eval(),
        device=device,
        normalize=normalization(spec),
        flip=content.get("mirror", PLAIN),  # the reference's files do not say
        checkpoint=checkpoint,
    )
