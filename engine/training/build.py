"""What a training needs, built from its flags: data (clips or tokens), the network, its state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datasets import Split
from datasets.clips import ClipDataset
from datasets.fingerprint import describe, fingerprint
from datasets.samplers import TrainingBatches, ValidationBatches
from engine import UsageError, distributed
from engine.config import Recipe, TrainingConfig
from engine.data import (
    augmentation,
    check_before_training,
    choose_flip,
    flow_bound,
    frame_reader,
    normalization,
    open_split,
    remedies,
    training_transform,
)
from engine.files import resolve
from engine.loading import Loader
from engine.speed import Speed, compile_training, fit
from engine.tokens.dataset import (
    TokenDataset,
    cached_weights,
    find_cache,
    open_cached_split,
    start_at_tokens,
)
from engine.training.epoch import Augment
from engine.training.signals import ignore_in_worker
from engine.training.state import MakeOptimizer, TrainingState
from engine.weights.choose import find_weights, name_of, start_from_weights
from models import ArchSpec, VideoNet, create_model
from models.finetuning import (
    drop_path,
    drop_tokens,
    freeze,
    parameter_groups,
    recompute_activations,
)
from video_transforms import CenterCrop, ClipAugmentation


@dataclass(frozen=True)
class TrainingData:
    """What a training reads, whatever it comes from.

    Attributes:
        train, val: loaders of (batch, labels): uint8 clips (N, S, T, H, W, C) or tokens
            (N, 1, ...), and int64 (N,).
        prepare: a batch without its segments, on the device -> what the network takes.
        attach: (network, whether it is new) -> makes it start from what is read here.
        weights: what `--weights` says, or which file these data ask for.
        metadata: what a checkpoint says about its data, and of a new network its first weights.
        remedies: what would make loading faster.
        augment: (number of a training batch, its clips on the device) -> its clips, augmented.
    """

    spec: ArchSpec
    split: Split
    train: DataLoader
    val: DataLoader
    prepare: Callable[[Tensor], Tensor]
    attach: Callable[[VideoNet, bool], None]
    weights: str
    metadata: dict
    remedies: list[str]
    augment: Augment | None = None


def build_data(
    config: TrainingConfig, spec: ArchSpec, device: torch.device, speed: Speed
) -> TrainingData:
    """Checks and opens what the flags name: a token cache, or frames, packs or videos."""
    if config.cache is not None:
        return _token_data(config, spec, device)
    return _clip_data(config, spec, device, speed.channels_last)


def _clip_data(
    config: TrainingConfig, spec: ArchSpec, device: torch.device, channels_last: bool
) -> TrainingData:
    changes = augmentation(spec, config.recipe, config.seed)
    # lists
    if not config.skip_doctor:
        check_before_training(config.data, spec)
    split = open_split(config.data, spec)
    data = fingerprint(split)
    print(describe(data))
    # clips
    reader = frame_reader(spec, split, config.data)
    flip = choose_flip(config.flip, split)
    dataset = partial(
        ClipDataset,
        reader=reader,
        length=spec.frames,
        segments=config.recipe.num_seg,
        seed=config.seed,
    )
    max_bad = config.max_bad if config.on_bad_sample == "skip" else None
    views = training_transform(spec, flip)
    train = dataset(split.train, transform=views, training=True, max_bad=max_bad)
    # A test replaces nothing.
    val_bad = None if config.evaluate else max_bad
    crop = CenterCrop(spec.input.crop)
    val = dataset(split.val, transform=crop, training=False, max_bad=val_bad)
    clip_bytes = math.prod(spec.clip_shape)
    loaders = _loaders(train, val, config, device, config.data.workers, clip_bytes)
    batches = loaders["train"].batch_sampler
    return TrainingData(
        spec=spec,
        split=split,
        **loaders,
        prepare=normalization(spec, channels_last),
        attach=lambda model, is_new: None,
        weights=config.weights,
        metadata=_metadata(split, flow_bound(split), flip, data),
        remedies=remedies(split, spec, config.data.workers, config.data.scaled_decoding),
        augment=changes and partial(augment_batch, changes, batches),
    )


def augment_batch(
    augment: ClipAugmentation, batches: TrainingBatches, number: int, clips: Tensor
) -> Tensor:
    """An epoch's batch, uint8 (N, S, T, H, W, C), each video as (seed, epoch, video) say."""
    augmented = torch.empty_like(clips)
    for place, video in enumerate(batches.batch(number)):
        augmented[place] = augment(clips[place], batches.epoch, video)
    return augmented


def _token_data(config: TrainingConfig, spec: ArchSpec, device: torch.device) -> TrainingData:
    cache = find_cache(config.cache, config.data, spec, at=config.at)
    split = open_cached_split(config.data, spec, cache)
    print(f"tokens: {cache.folder}")
    data = {k: v for k, v in cache.metadata["data"].items() if k != "scaled_decoding"}
    flip, bound = cache.metadata["views"]["mirror"], cache.metadata["flow_bound"]
    train = TokenDataset(cache.train, training=True, seed=config.seed)
    val = TokenDataset(cache.central, training=False)
    return TrainingData(
        spec=spec,
        split=split,
        # Reading a view takes less time than sending it from one process to another.
        **_loaders(train, val, config, device, workers=0),
        prepare=Tensor.float,  # the cache's are half precision
        attach=partial(start_at_tokens, cache=cache),
        weights=cached_weights(config.weights, cache),
        metadata=_metadata(split, bound, flip, data),
        remedies=[],
    )


def _metadata(split: Split, bound: float | None, flip: str, data: dict) -> dict:
    return {
        "dataset": split.dataset,
        "split": split.number,
        "class_names": split.class_names,
        "flow_bound": bound,
        "mirror": flip,
        "fingerprint": data,
    }


def _loaders(
    train: Dataset,
    val: Dataset,
    config: TrainingConfig,
    device: torch.device,
    workers: int,
    clip_bytes: int = 0,
) -> dict[str, DataLoader]:
    place = (distributed.rank(), distributed.world_size())
    size = config.recipe.batch_size
    batches = {
        "train": (train, TrainingBatches(len(train), size, config.seed, *place)),
        "val": (val, ValidationBatches(len(val), size, *place)),
    }
    return {
        name: Loader(
            dataset,
            workers,
            size * config.recipe.num_seg * clip_bytes,
            ignore_in_worker,
            batch_sampler=sampler,
            pin_memory=device.type == "cuda",
            persistent=True,
            generator=torch.Generator(),  # leaves the training's random numbers alone
        )
        for name, (dataset, sampler) in batches.items()
    }


def build_model(
    config: TrainingConfig, data: TrainingData, device: torch.device, speed: Speed
) -> VideoNet:
    """The network on its device: with pretrained weights if it is new, as the recipe wants it."""
    model = create_model(data.spec.name, len(data.split.class_names))
    if config.is_new:  # else a checkpoint brings all weights
        folder = resolve(None, "weights")
        print(start_from_weights(model, data.weights, folder))
        found = find_weights(model.spec, data.weights, folder)
        data.metadata["initial_weights"] = name_of(found)
    model = prepare_model(fit(model.to(device), speed), config.recipe, device)
    data.attach(model, config.is_new)
    return model


def prepare_model(model: VideoNet, recipe: Recipe, device: torch.device) -> VideoNet:
    """The network as the recipe wants it trained; raises UsageError for what it does not have."""
    if recipe.drop_tokens is not None:
        drop_tokens(model, recipe.drop_tokens)
    if recipe.drop_path is not None:
        drop_path(model, recipe.drop_path)
    if recipe.activation_checkpointing:
        recompute_activations(model)
    if recipe.sync_bn:
        if device.type != "cuda":
            raise UsageError("--sync-bn computes on GPUs alone; on a CPU use --freeze-bn")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def build_state(
    config: TrainingConfig,
    model: VideoNet,
    make_optimizer: MakeOptimizer,
    speed: Speed,
    epoch_batches: int,
) -> TrainingState:
    """The network with its optimizer, schedule and all that changes with it.

    `epoch_batches`: how many an epoch has.
    """
    recipe = config.recipe
    frozen = freeze(model, recipe.freeze_backbone, recipe.freeze_bn)
    parameters = parameter_groups(model, recipe.lr, recipe.layer_decay)
    optimizer = make_optimizer(parameters, recipe.lr, recipe.momentum, recipe.weight_decay)
    state = TrainingState(model, optimizer, recipe, frozen)
    state.epoch, state.steps_left = config.start_epoch or 0, config.max_steps
    if config.cache is None:
        state.train_mode()
        batches = (recipe.epochs - state.epoch) * epoch_batches
        if config.max_steps is not None:
            batches = min(batches, config.max_steps * recipe.iter_size)
        clips = recipe.batch_size * recipe.num_seg
        compile_training(model, speed, clips, recipe.freeze_bn, batches)
    return state
