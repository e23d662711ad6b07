"""Fine-tuning: what of a network is frozen, learns more slowly, or is computed twice."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

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

    The head's rate is `lr`, the last part of the backbone has `lr * layer_decay`, and so on down to
    the input (arXiv 1801.06146, arXiv 2106.08254). The head's group is the first.
    """
    if layer_decay == 1:
        return list(model.parameters())
    depths = model.backbone_depth()
    deepest = 1 + max(depths.values())
    groups: dict[int, list[nn.Parameter]] = {0: []}
    for name, parameter in model.named_parameters():
        groups.setdefault(deepest - depths.get(name, deepest), []).append(parameter)
    return [
        {"params": group, "lr": lr * layer_decay**distance}
        for distance, group in sorted(groups.items())
    ]


def drop_tokens(model: VideoNet, probability: float) -> None:
    """Sets how often a BERT head does not see a token while training."""
    heads = [module for module in model.modules() if isinstance(module, BERT)]
    if not heads:
        raise ArchError(f"--drop-tokens is BERT's, and {model.spec.name} has no BERT head")
    for head in heads:
        head.keep_probability = 1 - probability


def drop_path(model: VideoNet, probability: float) -> None:
    """Sets how often training leaves out a residual block's branch, for each clip (arXiv
    1603.09382): from the input on the probability grows in equal steps to this one, of the last.

    The block that FRMB puts in is new and always computed. Raises ArchError for a backbone without
    residual blocks.
    """
    new = {id(m) for name in model.replaced_blocks() for m in model.get_submodule(name).modules()}
    inside = dict.fromkeys(m for part in model.backbone_parts() for m in part.modules())
    layers = [m for m in inside if isinstance(m, StochasticDepth) and id(m) not in new]
    if not layers:
        raise ArchError(
            f"--drop-path leaves out residual blocks, and {model.spec.name} has none that could be"
        )
    for number, layer in enumerate(layers, 1):
        layer.p = probability * number / len(layers)


def recompute_activations(model: VideoNet) -> None:
    """Lets each block of the backbone keep its input alone and compute the rest again when the
    gradient comes (arXiv 1604.06174); a `Recomputed` takes the block's place."""
    wrappers = {}
    for part in model.backbone_parts():
        for block in part if isinstance(part, nn.Sequential) else [part]:
            if list(block.children()) and list(block.parameters()):  # a layer alone saves nothing
                wrappers[block] = Recomputed(block)
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in wrappers:
            model.set_submodule(name, wrappers[module])


class Recomputed(nn.Module):
    """A block that keeps nothing inside; keys, parameters and children are the block's own."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self._block = (block,)  # not registered: the entries of `block.` would be new keys
        self._modules, self._parameters = block._modules, block._parameters
        self._buffers = block._buffers
        self._non_persistent_buffers_set = block._non_persistent_buffers_set
        self.training = block.training

    def forward(self, *inputs: Tensor) -> Tensor:
        (block,) = self._block
        block.training = self.training
        if not torch.is_grad_enabled():
            return block(*inputs)
        return checkpoint(block, *inputs, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _untracked(self)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """Batch norms leave their running statistics alone: a batch counts once."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    earlier = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, earlier, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
