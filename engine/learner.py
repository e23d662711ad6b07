"""From batches to a step: loss, mixed precision, accumulation, clipping, the weights' average."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine import distributed

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class NonFiniteLoss(ValueError):
    """The loss became infinite or not a number."""


class Learner:
    """A network and what changes its weights.

    Args:
        model: the bare network, on its device.
        optimizer: of its parameters.
        normalize: uint8 clips (N, T, H, W, C) on the device -> the network's input.
        batch_size, iter_size: videos of a process in a batch, batches before a step. Each video
            weighs one part in batch_size * iter_size * processes, in an incomplete batch too.
        amp: a key of AMP_TYPES: the precision of the forward pass. fp16 scales the loss.
        clip_grad: largest L2 norm of the gradient, None for any.
        label_smoothing: share of the target that is spread over all classes (arXiv 1512.00567).
        mixup: alpha of the mixing weight's beta distribution (arXiv 1710.09412), 0 for none.
        ema: decay per step of the weights' moving average, None for none.
        frozen: modules that stay in evaluation mode while training.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        normalize: Callable[[Tensor], Tensor],
        device: torch.device,
        batch_size: int,
        iter_size: int = 1,
        amp: str = "off",
        clip_grad: float | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        ema: float | None = None,
        frozen: Iterable[nn.Module] = (),
    ):
        self.model, self.optimizer, self.normalize, self.device = (
            *(model, optimizer),
            *(normalize, device),
        )
        self.batch_size, self.iter_size, self.amp = batch_size, iter_size, amp
        self.clip_grad, self.label_smoothing, self.mixup = clip_grad, label_smoothing, mixup
        self.frozen = list(frozen)
        self.network = distributed.parallel(model, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.average = None
        if ema is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))

    def train_mode(self) -> None:
        """Training mode for everything but the frozen modules."""
        self.network.train()
        for module in self.frozen:
            module.training = False

    def logits(self, network: nn.Module, inputs: Tensor, segments: int) -> Tensor:
        """Normalised clips (N * segments, C, T, H, W) -> float32 (N, classes), a video's mean."""
        dtype = AMP_TYPES[self.amp]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            logits = network(inputs)
        return logits.float().unflatten(0, (-1, segments)).mean(dim=1)

    def inputs(self, clips: Tensor) -> Tensor:
        """uint8 clips (N, S, T, H, W, C) -> the network's input (N * S, C, T, H, W)."""
        return self.normalize(clips.to(self.device, non_blocking=True).flatten(0, 1))

    def accumulate(self, clips: Tensor, labels: Tensor, last: bool) -> tuple[Tensor, float]:
        """Adds a batch's gradient; `last` before a step.

        Takes uint8 clips (N, S, T, H, W, C) and labels (N,), IGNORED for padding. Returns the
        logits (N, classes) and the loss summed over the videos, nats.
        Raises NonFiniteLoss before a bad gradient is made.
        """
        with distributed.gradient_sync(self.network, last):
            logits, loss = self._forward(clips, labels)
            value = loss.item()
            if not torch.isfinite(loss):
                raise NonFiniteLoss(f"the loss is {value}")
            self.scaler.scale(loss / (self.batch_size * self.iter_size)).backward()
        return logits.detach(), value

    def _forward(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        inputs, segments = self.inputs(clips), clips.shape[1]
        if not self.mixup:
            logits = self.logits(self.network, inputs, segments)
            return logits, self._loss(logits, labels)
        share = torch.distributions.Beta(self.mixup, self.mixup).sample().item()
        share = max(share, 1 - share)  # a video's own label stays the larger part
        other = torch.randperm(len(labels), device=labels.device)
        videos = inputs.unflatten(0, (-1, segments))
        mixed = (share * videos + (1 - share) * videos[other]).flatten(0, 1)
        logits = self.logits(self.network, mixed, segments)
        loss = share * self._loss(logits, labels) + (1 - share) * self._loss(logits, labels[other])
        return logits, loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self.label_smoothing
        )

    def step(self) -> None:
        """Changes the weights by the accumulated gradient, and forgets it."""
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> dict:
        """What is not the model's or the optimizer's: the loss's scale and the average."""
        state: dict = {"scaler": self.scaler.state_dict()}
        if self.average is not None:
            state["ema"] = self.average.module.state_dict()
            state["ema_steps"] = int(self.average.n_averaged)
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restores it; an average that the state lacks begins at the network's weights."""
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(state.get("ema", self.model.state_dict()))
            self.average.n_averaged.fill_(state.get("ema_steps", 0))
