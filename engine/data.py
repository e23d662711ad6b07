"""Lists -> readers and transforms, as an architecture needs them; and the quick data check."""

import os
from pathlib import Path

from datasets import DataError, Split, create_dataset, describe_published
from datasets.doctor import check_lists, open_checked
from datasets.doctor.findings import LEAKS, summarize_kinds
from datasets.fingerprint import compare_fingerprints
from datasets.sources.choose import FOLDERS, PACKED, VIDEOS
from datasets.sources.packed import pack_name
from datasets.sources.reader import Reader
from engine import UsageError
from engine.config import AugmentConfig, DataConfig
from engine.files import resolve
from models import ArchSpec
from video_transforms import (
    INVERTED,
    NO_FLIP,
    PLAIN,
    ClipAugmentation,
    Compose,
    MultiScaleCornerCrop,
    Normalize,
    RandomHorizontalFlip,
)

SUBSETS = ("train", "val")


def open_split(data: DataConfig, spec: ArchSpec, subsets: tuple[str, ...] = SUBSETS) -> Split:
    """The lists that the flags name, checked against the disk; prints if they are published."""
    split = create_dataset(
        data.dataset,
        data.split,
        spec.modality,
        lists_folder(data),
        data_folder(data),
        subsets,
        spec.input.resize,
        data.source,
    )
    for line in describe_published(split):
        print(line)
    return split


def lists_folder(data: DataConfig) -> Path:
    """The folder of all datasets' lists."""
    return resolve(data.settings, "datasets/settings")


def data_folder(data: DataConfig) -> Path:
    """The folder of frames, packs or videos: a given one, or the dataset's own."""
    videos = resolve(None, f"datasets/{data.dataset}_videos")
    frames = resolve(data.frames, f"datasets/{data.dataset}_frames")
    return videos if data.frames is None and not frames.exists() and videos.exists() else frames


def check_before_training(data: DataConfig, spec: ArchSpec) -> None:
    """Checks the lists against the frame folders; raises DataError for errors, prints the rest.

    Videos on both sides of the split are printed, too: overfitting on purpose is no fault.
    Packs and video files are checked when they are opened.
    """
    if not _reads_folders(data, spec):
        return
    where = (lists_folder(data), data_folder(data))
    checked = open_checked(data.dataset, *where, data.split, (spec.modality,))
    findings = check_lists(checked)
    errors = [f for f in findings if f.severity == "error" and f.kind not in LEAKS]
    command = f"python scripts/data/doctor.py --dataset {data.dataset} --split {data.split}"
    for option in ("settings", "frames"):
        if getattr(data, option):
            command += f" --{option} {getattr(data, option)}"
    if errors:
        first, *more = summarize_kinds(errors)
        raise DataError(
            "\n  ".join([first, *more, f"what fixes it: {command}"])
            + "\n  --skip-doctor leaves this check out"
        )
    # Whether lists are the published ones is printed for every source.
    shown = [f for f in findings if f.severity != "info" and f.kind != "published-list"]
    warnings = summarize_kinds(shown)
    for line in warnings:
        print(f"warning: {line}")
    if warnings:
        print(f"more of this: {command}")


def _reads_folders(data: DataConfig, spec: ArchSpec) -> bool:
    """Whether images come from frame folders, as far as can be told before the lists are read."""
    root = data_folder(data)
    packs = [root / pack_name(spec.modality, size) for size in (spec.input.resize, None)]
    packed = data.source == PACKED or data.source is None and any(p.exists() for p in packs)
    videos = data.source == VIDEOS or data.frames is None and root.name.endswith("_videos")
    return not packed and not videos


def warn_of_other_data(content: dict, here: dict, what: object, subsets: tuple[str, ...]) -> None:
    """Prints what differs between the data that a checkpoint was trained on and these.

    Args:
        content: the checkpoint's; older files, and the reference's, do not say.
        here: the fingerprint of these data.
        what: the checkpoint's name.
        subsets: the lists that matter.
    """
    there = content.get("fingerprint")
    try:
        found = compare_fingerprints(there, here, subsets) if there else []
    except (AttributeError, KeyError, TypeError, ValueError):
        found = ["its fingerprint cannot be read"]
    for difference in found:
        print(f"warning: other data than {what} was made with: {difference}")


def frame_reader(spec: ArchSpec, split: Split, data: DataConfig) -> Reader:
    """Reads the split's images at the architecture's size; prints from where."""
    scaled = data.scaled_decoding
    print(f"reading {split.source}" + (", decoded at a fraction of its size" if scaled else ""))
    return split.source.reader(spec.input.resize, scaled, round(data.max_megapixels * 1e6))


def flow_bound(split: Split) -> float | None:
    """The displacement, in pixels, that its flow images reach to, where that is recorded."""
    preparation = split.source.preparation() if split.modality == "flow" else None
    return preparation.bound if preparation else None


def choose_flip(asked: bool | None, split: Split) -> str:
    """How training flips clips: as the user asked, or as the dataset allows."""
    if not (split.may_flip if asked is None else asked):
        return NO_FLIP
    return INVERTED if split.modality == "flow" else PLAIN


def training_transform(spec: ArchSpec, flip: str) -> Compose:
    """What training does to a video's images: a random crop, and perhaps a flip."""
    return Compose(MultiScaleCornerCrop(spec.input.crop), RandomHorizontalFlip(flip))


def augmentation(spec: ArchSpec, config: AugmentConfig, seed: int) -> ClipAugmentation | None:
    """What the flags do to training clips beyond that; None: nothing.

    Pixels without a picture get the mean, which the network sees as 0: in flow, no displacement.
    Raises UsageError for what is of no meaning for flow.
    """
    flags = {"rand_augment": config.rand_augment is not None, "color_jitter": config.color_jitter}
    for name, is_on in flags.items():
        if is_on and spec.modality == "flow":
            raise UsageError(
                f"--{name.replace('_', '-')} changes colours and turns pictures, but the pixels of "
                f"{spec.name} are displacements; of these flags --random-erasing is for flow, too"
            )
    if not any(flags.values()) and not config.random_erasing:
        return None
    fill = [round(255 * mean / spec.input.value_range) for mean in spec.input.mean]
    numbers = (config.rand_augment, config.random_erasing, config.color_jitter)
    return ClipAugmentation(seed, fill, *numbers)


def normalization(spec: ArchSpec, channels_last: bool = False) -> Normalize:
    """uint8 clips -> what the architecture's network takes, in that memory layout."""
    expected = spec.input
    return Normalize(expected.value_range, expected.mean, expected.std, channels_last)


def remedies(split: Split, spec: ArchSpec, workers: int, scaled: bool) -> list[str]:
    """What would make loading faster and is not done yet, the harmless first.

    `scaled`: JPEGs are decoded at a fraction of their size.
    """
    source, (width, height) = split.source, spec.input.resize
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = []
    if workers < cores:
        found.append(f"--workers {cores}, there are as many cores (now {workers})")
    if source.kind == VIDEOS:
        found.append("extracting frames with scripts/data/prepare_videos.py, then packing them")
    if source.kind == FOLDERS or (source.pack and source.pack.stem.endswith("original")):
        found.append(
            f"scripts/data/pack_frames.py --dataset {split.dataset} "
            f"--modality {spec.modality} --size {width}x{height}"
        )
    if source.kind == FOLDERS and not scaled:
        found.append("--scaled-decoding, if the images are at least twice as large (other pixels)")
    return found or ["a machine with more cores"]
