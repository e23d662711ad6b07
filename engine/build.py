"""Arguments -> what a training or a test needs: data, network, device, transforms."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from datasets import Split, create_dataset
from datasets.clips import ClipDataset
from datasets.extraction import read_preparation
from datasets.fingerprint import describe, fingerprint
from datasets.frames import FrameReader
from engine.checkpoint import BEST, CheckpointError, load_checkpoint, read_file, strip_wrappers
from engine.cli import choose_device, resolve
from engine.data_check import check_before_training, warn_of_other_data
from engine.signals import ignore_in_worker
from models import ArchSpec, VideoNet, create_model, get_arch
from models.pretrained import load_pretrained
from video_transforms import (
    INVERTED,
    NONE,
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
    mirror_rule: str
    folder: Path
    fingerprint: dict

    def about(self) -> dict:
        """What a checkpoint says about its data."""
        return {
            "dataset": self.split.dataset,
            "split": self.split.number,
            "class_names": self.split.class_names,
            "flow_bound": flow_bound(self.split),
            "mirror": self.mirror_rule,
            "fingerprint": self.fingerprint,
        }


@dataclass
class Stream:
    """A trained network and the videos to test it on; `unscored`: folder -> why it could not be."""

    spec: ArchSpec
    split: Split
    model: VideoNet
    device: torch.device
    normalize: Normalize
    mirror_rule: str
    checkpoint: Path
    unscored: dict[str, str] = field(default_factory=dict)


class EpochSampler(Sampler[int]):
    """A new order every epoch, a function of (seed, epoch) alone.

    Attributes:
        permutation: the epoch's order, int64 (length,).
        position: how many of it are done already, when an epoch is taken up again.
    """

    def __init__(self, length: int, seed: int):
        self.length, self.seed = length, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        self.permutation, self.position = torch.from_numpy(order), 0

    def restore(self, permutation: torch.Tensor, position: int) -> None:
        """Takes up an epoch; raises CheckpointError if it was one of another list."""
        if len(permutation) != self.length:
            raise CheckpointError(
                f"the epoch was begun with {len(permutation)} training videos, now there are "
                f"{self.length}; continue from a checkpoint of a whole epoch"
            )
        self.permutation, self.position = permutation, position

    def __len__(self) -> int:
        return self.length - self.position

    def __iter__(self):
        yield from self.permutation[self.position :].tolist()


def run_folder(output: Path | None, dataset: str, arch: str, split: int) -> Path:
    """Where a run's checkpoints and logs lie."""
    return resolve(output, "checkpoint") / f"{dataset}_{arch}_split{split}"


def open_split(args: argparse.Namespace, spec: ArchSpec, parts: tuple[str, ...]) -> Split:
    """The lists that the arguments name, checked against the disk."""
    return create_dataset(
        args.dataset,
        args.split,
        spec.modality,
        resolve(args.settings, "datasets/settings"),
        resolve(args.frames, f"datasets/{args.dataset}_frames"),
        parts,
    )


def normalization(spec: ArchSpec) -> Normalize:
    return Normalize(spec.input.value_range, spec.input.mean, spec.input.std)


def frame_reader(spec: ArchSpec, split: Split) -> FrameReader:
    return FrameReader(split.frames, split.names, split.modality, spec.input.resize)


def flow_bound(split: Split) -> float | None:
    """The displacement, in pixels, that its flow images reach to, where that is recorded."""
    preparation = read_preparation(split.frames) if split.modality == "flow" else None
    return preparation.bound if preparation else None


def choose_mirror_rule(flip: bool | None, split: Split) -> str:
    """How training mirrors clips: as the user asked, or as the dataset allows."""
    if not (split.mirrored if flip is None else flip):
        return NONE
    return INVERTED if split.modality == "flow" else PLAIN


def build_training(args: argparse.Namespace) -> Training:
    """Checks everything that the arguments name, in the order of its cost, and builds it."""
    spec = get_arch(args.arch)
    device = choose_device(args.device)
    weights = read_file(resolve(args.weights, ""), "weights") if args.weights else None
    if not args.skip_doctor:
        check_before_training(args, spec)
    split = open_split(args, spec, ("train", "val"))
    data = fingerprint(split)
    print(describe(data))
    torch.manual_seed(args.seed)
    model = create_model(spec.name, len(split.class_names))
    if weights is not None:
        state_dict = weights.get("state_dict", weights.get("model_state", weights))
        print(f"{args.weights}: {load_pretrained(model, strip_wrappers(state_dict))}")
    reader = frame_reader(spec, split)
    size = spec.input.crop
    rule = choose_mirror_rule(args.flip, split)
    augment = Compose(MultiScaleCornerCrop(size), RandomHorizontalFlip(rule))
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
    sampler = EpochSampler(len(train), args.seed)
    return Training(
        spec=spec,
        split=split,
        model=model.to(device),
        device=device,
        normalize=normalization(spec),
        train_loader=_loader(train, args, device, sampler),
        val_loader=_loader(val, args, device),
        mirror_rule=rule,
        folder=run_folder(args.output, args.dataset, spec.name, args.split),
        fingerprint=data,
    )


def _loader(
    dataset: ClipDataset,
    args: argparse.Namespace,
    device: torch.device,
    sampler: EpochSampler | None = None,
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=args.batch_size,
        sampler=sampler,
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
        persistent_workers=args.workers > 0,
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator(),  # leaves the training's random numbers alone
    )


def build_stream(args: argparse.Namespace, arch: str, checkpoint: Path | None) -> Stream:
    """A trained network of architecture `arch` and its test list; by default its best model."""
    spec = get_arch(arch)
    device = choose_device(args.device)
    split = open_split(args, spec, ("val",))
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
    warn_of_other_data(content, fingerprint(split), checkpoint, ("val",))
    return Stream(
        spec=spec,
        split=split,
        model=model.to(device).eval(),
        device=device,
        normalize=normalization(spec),
        mirror_rule=content.get("mirror", PLAIN),  # the reference's files do not say
        checkpoint=checkpoint,
    )
