"""The place of several processes: with one, every helper answers for that one.

Training runs in a single process on a single device. Checkpoints already ask here for the bare
network; who writes and prints is to be asked here, too, once DistributedDataParallel comes.
"""

import torch.distributed as dist
from torch import nn


def is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all, 0 with one."""
    return dist.get_rank() if is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
