"""Temporal heads trained and tested on tokens, without the backbone that made them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets import DataError
from datasets.samplers import TrainingBatches
from engine.learner import Learner
from engine.metrics import count_flops
from engine.testing.token_order import NORMAL, TimeOrder
from engine.tokens.cache import CachedPart
from models import NETWORKS, ArchSpec
from models.late_temporal import Reorder
from opt import Schedule, adamw, sgd

OPTIMIZERS = {"adamw": adamw, "sgd": sgd}
MOMENTUM, WARMUP_EPOCHS = 0.9, 2


@dataclass(frozen=True)
class Setting:
    """What is tuned; the rate warms up over two epochs and falls to zero as a cosine."""

    optimizer: str
    lr: float
    weight_decay: float
    epochs: int


@dataclass(frozen=True)
class TokenVideos:
    """Views of each video and labels, int64 (videos,).

    Tokens, float32 (views, T', D), are in memory; maps, float16 (views, D, T', h, w), in files.
    """

    names: list[str]
    tokens: list[Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.names)


def load_videos(part: CachedPart, maps: bool = False) -> TokenVideos:
    """A part of a cache.

    Args:
        maps: leave feature maps as they are; else they become tokens.
    """
    views = [torch.from_numpy(tokens) for tokens in part.tokens]
    if not maps:
        views = [v.float() for v in views]
        views = [v.mean(dim=(3, 4)).transpose(1, 2) if v.ndim == 5 else v for v in views]
    return TokenVideos([r.folder for r in part.records], views, torch.from_numpy(part.labels))


class TokenNet(nn.Module):
    """What a network of one pathway has behind its backbone: tokens -> logits."""

    def __init__(self, spec: ArchSpec, classes: int):
        super().__init__()
        self.net = NETWORKS[spec.head](spec, classes)
        self.net.features, self.net.mapper = nn.Identity(), None

    def forward(self, tokens: Tensor, reorder: Reorder | None = None) -> Tensor:
        """(N, T', D), or maps (N, D, T', h, w) for a head that begins with them."""
        return self.net.classify(tokens, reorder)

    def check(self, tokens: Tensor) -> None:
        """Raises DataError unless views (views, ...) are of the network's shape."""
        width, length = self.net.width, self.net.num_tokens
        shape = tuple(tokens.shape[1:])
        if shape != (length, width) and shape[:2] != (width, length):
            raise DataError(
                f"{self.net.spec.name} takes {length} tokens of {width}, these are {shape}"
            )


def head_size(spec: ArchSpec, classes: int) -> tuple[int, float]:
    """Parameters behind the backbone, and its GMACs for a clip; nothing is computed."""
    with torch.device("meta"), torch.no_grad():
        encoded = NETWORKS[spec.head](spec, classes).eval().encode(torch.empty(1, *spec.clip_shape))
        head = TokenNet(spec, classes).eval()
        flops = count_flops(head, encoded)
    return sum(p.numel() for p in head.parameters()), flops / 2e9


def train_head(
    spec: ArchSpec,
    classes: int,
    videos: TokenVideos,
    rows: Sequence[int],
    setting: Setting,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> tuple[TokenNet, list[float]]:
    """Trains on some of the videos, in an epoch each once by a random view.

    Returns the network and the epochs' mean losses, nats. All randomness follows from `seed`.
    """
    torch.manual_seed(seed)
    model = TokenNet(spec, classes).to(device)
    model.check(videos.tokens[0])
    make = OPTIMIZERS[setting.optimizer]
    optimizer = make(model.parameters(), setting.lr, MOMENTUM, setting.weight_decay)
    schedule = Schedule(optimizer, "cosine", setting.epochs, WARMUP_EPOCHS)
    learner = Learner(model, optimizer, torch.Tensor.float, device, batch_size)
    batches, losses = TrainingBatches(len(rows), batch_size, seed), []
    for epoch in range(setting.epochs):
        batches.set_epoch(epoch)
        learner.train_mode()
        total = 0.0
        for batch in batches:
            chosen = [rows[place] for place in batch]
            views = [_random_view(videos.tokens[video]) for video in chosen]
            labels = videos.labels[chosen].to(device)
            total += learner.accumulate(torch.stack(views)[:, None], labels, last=True)[1]
            learner.step()
        losses.append(total / len(rows))
        schedule.step(0.0)
    return model.eval(), losses


def _random_view(views: Tensor) -> Tensor:
    return views[int(torch.randint(len(views), ()))]


@torch.inference_mode()
def score_head(
    model: TokenNet,
    videos: TokenVideos,
    rows: Sequence[int],
    device: torch.device,
    order: str = NORMAL,
) -> Tensor:
    """The mean of each video's logits over its views, float32 (rows, classes)."""
    scores, reorder = [], TimeOrder(order)
    for video in rows:
        reorder.start(video)
        scores.append(model(videos.tokens[video].to(device).float(), reorder).mean(dim=0))
    return torch.stack(scores).float().cpu()


def loss_and_hits(scores: Tensor, labels: Tensor) -> tuple[float, int]:
    """Mean cross-entropy, nats, and how many videos are called right."""
    return F.cross_entropy(scores, labels).item(), int((scores.argmax(1) == labels).sum())
