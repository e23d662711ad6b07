"""Flags about the backbone: what stays as it was, learns more slowly, or is computed twice."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from models.archs import ArchError
from models.bert import BERT
from models.late_temporal import VideoNet


def freeze(model: VideoNet, backbone: bool, batch_norms: bool) -> list[nn.Module]:
    """Takes the gradients off the backbone, or its batch norms; returns the frozen modules.

    Those stay in evaluation mode: their batch statistics are constants too. Reduction blocks and
    heads are new and always learn.
    """
    inside = {id(m) for part in model.backbone_parts() for m in part.modules()}
    new = {id(m) for name in model.replaced_blocks() for m in model.get_submodule(name).modules()}
    frozen = [module for module in model.modules() if id(module) in inside - new]
    if not backbone:
        frozen = [m for m in frozen if batch_norms and isinstance(m, _BatchNorm)]
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    return frozen


def parameter_groups(model: VideoNet, lr: float, layer_decay: float) -> list:
    """The optimizer's parameters, in registration order; with decay, one group for each depth.

    The head's rate is `lr`, the backbone's last part's `lr * layer_decay`, and so on down to its
    input (arXiv 1801.06146, arXiv 2106.08254). The head's group is the first.
    """
    if layer_decay == 1:
        return list(model.parameters())
    depths = model.backbone_depth()
    deepest = 1 + max(depths.values())
    groups: dict[int, list[nn.Parameter]] = {0: []}
    for name, parameter in model.named_parameters():
        distance = deepest - depths.get(name, deepest)
        groups.setdefault(distance, []).append(parameter)
    return [
        {"params": groups[distance], "lr": lr * layer_decay**distance}
        for distance in sorted(groups)
    ]


def drop_tokens(model: VideoNet, probability: float) -> None:
    """Sets how often a BERT head does not see a token while training."""
    heads = [module for module in model.modules() if isinstance(module, BERT)]
    if not heads:
        raise ArchError(f"--drop-tokens is BERT's, and {model.spec.name} has no BERT head")
    for head in heads:
        head.keep_probability = 1 - probability


def recompute_activations(model: VideoNet) -> None:
    """Lets each block of the backbone keep its input alone and compute the rest again when the
    gradient comes (arXiv 1604.06174)."""
    for part in model.backbone_parts():
        blocks = list(part) if isinstance(part, nn.Sequential) else [part]
        for block in blocks:
            if any(True for _ in block.parameters()):
                block.forward = _Recomputed(block)


class _Recomputed:
    """A block's forward pass that keeps nothing inside."""

    def __init__(self, block: nn.Module):
        self.block = block

    def __call__(self, *inputs):
        forward = type(self.block).forward
        if not torch.is_grad_enabled():
            return forward(self.block, *inputs)
        return checkpoint(
            forward, self.block, *inputs, use_reentrant=False, context_fn=self._contexts
        )

    def _contexts(self):
        return _Untracked([]), _Untracked(_batch_norms(self.block))


def _batch_norms(block: nn.Module) -> list[_BatchNorm]:
    return [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


class _Untracked:
    """A context in which batch norms leave their running statistics alone: a batch counts once."""

    def __init__(self, norms: list[_BatchNorm]):
        self.norms = norms

    def __enter__(self) -> None:
        self.earlier = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.earlier, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
