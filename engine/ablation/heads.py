"""One temporal head trained and scored on tokens, by the common training and test loops."""

import gc
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datasets import DataError
from datasets.samplers import TrainingBatches
from engine.config import FEW_VIDEOS, RECIPES, Recipe
from engine.files import resolve
from engine.metrics import count_flops
from engine.speed import Speed, fit
from engine.testing.score import score_all
from engine.testing.stream import CACHED_BATCH, Stream, cached_clips
from engine.testing.token_order import NORMAL, TimeOrder
from engine.tokens.cache import CachedSubset, TokenCache
from engine.tokens.dataset import TokenDataset, cached_split, cached_weights, freeze_encoder
from engine.training.epoch import train_one_epoch
from engine.training.log import Progress
from engine.training.state import TrainingState
from engine.weights.choose import AUTO, start_from_weights
from models import NETWORKS, ArchSpec, VideoNet
from models.finetuning import freeze
from opt import adamw, sgd

OPTIMIZERS = {"adamw": adamw, "sgd": sgd}
FLOAT32 = Speed("exact", amp="off", channels_last=False, compile=False)
SCHEDULE_FIELDS = ("scheduler", "warmup_epochs", "freeze_bn")  # alike for all


@dataclass(frozen=True)
class Setting:
    """What is tuned; the schedule is the recipe's for few videos."""

    optimizer: str
    lr: float
    weight_decay: float
    epochs: int


def recipe_flags(setting: Mapping, batch_size: int) -> list[str]:
    """A setting as flags of the training scripts, which then train as `train_head`."""
    own = setting | {"batch_size": batch_size}
    few = RECIPES[FEW_VIDEOS]
    recipe = replace(few, fields=few.fields | {k: own[k] for k in own if k != "optimizer"})
    if setting["optimizer"] != few.optimizer:
        return recipe.flags()
    differs = {k: v for k, v in recipe.fields.items() if few.fields.get(k) != v}
    return ["--recipe", FEW_VIDEOS, *replace(few, fields=differs).flags()]


def head_size(spec: ArchSpec, classes: int) -> tuple[int, float]:
    """Parameters after the backbone, and its GMACs for a clip; nothing is computed."""
    with torch.device("meta"), torch.no_grad():
        model = NETWORKS[spec.head](spec, classes).eval()
        freeze_encoder(model)
        if model.encodes:
            encoded = model.encode(torch.empty(1, *spec.clip_shape))
        else:
            encoded = torch.empty(1, model.num_tokens, model.width)
        flops = count_flops(model, encoded)
    return sum(p.numel() for p in model.parameters() if p.requires_grad), flops / 2e9


def _new_network(
    spec: ArchSpec, classes: int, device: torch.device, cache: TokenCache | None
) -> VideoNet:
    """A network that starts at what a cache holds; what is below is frozen and not used.

    Behind a cache of maps it begins with the weights that the cache was made with.
    """
    model, at = NETWORKS[spec.head](spec, classes), cache.metadata["at"] if cache else None
    if at:
        start_from_weights(model, cached_weights(AUTO, cache), resolve(None, "weights"))
    freeze_encoder(model, at)
    return model.to(device)


def two_rates(model: VideoNet, lr: float, stage_lr: float) -> list[dict]:
    """The optimizer's parameters: what is new at `lr`, the backbone's own at `stage_lr`."""
    published = model.backbone_depth()
    named = list(model.named_parameters())
    new = [parameter for name, parameter in named if name not in published]
    stages = [parameter for name, parameter in named if name in published]
    return [{"params": new, "lr": lr}, {"params": stages, "lr": stage_lr}]


def tokens_of(model: VideoNet, encoded: Tensor) -> Tensor:
    """A cache's views (N, ...) -> float32, as the network takes them.

    Maps (N, D, T', h, w) become tokens (N, T', D) for a head that does not begin with maps.
    Raises DataError unless they are of the network's shape.
    """
    encoded = encoded.float()
    if model.starts_at:
        return encoded
    if encoded.ndim == 5 and not model.encodes:
        encoded = model.spatial_pool(encoded)
    shape, width, length = tuple(encoded.shape[1:]), model.width, model.num_tokens
    if shape != (length, width) and shape[:2] != (width, length):
        raise DataError(f"{model.spec.name} takes {length} tokens of {width}, these are {shape}")
    return encoded


def train_head(
    spec: ArchSpec,
    classes: int,
    subset: CachedSubset,
    setting: Setting,
    batch_size: int,
    seed: int,
    device: torch.device,
    cache: TokenCache | None = None,
    speed: Speed = FLOAT32,
    stage_lr: float | None = None,
) -> tuple[VideoNet, list[float]]:
    """Trains on a subset of a cache, in an epoch each video once by one of its views.

    `cache`: whose subset it is, where it holds maps and not tokens.
    `speed`: how the training is computed; its weights are float32.
    `stage_lr`: learning rate of the backbone's stages that learn; None: the setting's.

    Returns the network and the epochs' mean losses, nats. All randomness follows from `seed`.
    """
    gc.collect()  # an earlier network, its optimizer and schedule refer to each other
    # seed, model, optimizer
    torch.manual_seed(seed)
    model = fit(_new_network(spec, classes, device, cache), speed)
    tuned = asdict(setting)
    make = OPTIMIZERS[tuned.pop("optimizer")]
    how = {name: RECIPES[FEW_VIDEOS].fields[name] for name in SCHEDULE_FIELDS} | {"amp": speed.amp}
    recipe = Recipe(batch_size=batch_size, freeze_backbone=not model.starts_at, **tuned, **how)
    frozen = freeze(model, recipe.freeze_backbone, recipe.freeze_bn)
    groups = two_rates(model, recipe.lr, stage_lr) if stage_lr else model.parameters()
    optimizer = make(groups, recipe.lr, recipe.momentum, recipe.weight_decay)
    state = TrainingState(model, optimizer, recipe, frozen)
    # data
    data = TokenDataset(subset, training=True, seed=seed)
    batches = TrainingBatches(len(data), batch_size, seed)
    loader = DataLoader(data, batch_sampler=batches, generator=torch.Generator())
    # epochs
    losses = []
    for epoch in range(setting.epochs):
        data.set_epoch(epoch)
        batches.set_epoch(epoch)
        progress = Progress(f"epoch {epoch + 1}", print_freq=None)
        stats = train_one_epoch(state, loader, partial(tokens_of, model), recipe, progress)
        losses.append(stats.loss)
        state.schedule.step(0.0)
    return model.eval(), losses


def score_head(
    model: VideoNet, cache: TokenCache, subset: CachedSubset, order: str = NORMAL
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The mean of each video's logits over its views, (videos, classes), and each view's."""
    stream = Stream(
        spec=model.spec,
        split=replace(cached_split(cache), val=subset.records),
        model=model,
        device=next(model.parameters()).device,
        flip=cache.metadata["views"]["mirror"],
        checkpoint=Path(),
        read=partial(cached_clips, subset, 1, 1),
        prepare=partial(tokens_of, model),
        encode=model.encode if model.starts_at else torch.nn.Identity(),
        batch_size=CACHED_BATCH,
        order=TimeOrder(order, model.spec.streams),
    )
    return score_all(stream, show=False)
