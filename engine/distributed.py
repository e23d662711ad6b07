"""The place of several processes: with one, every helper answers for that one.

Training runs in a single process on a single device. The loop, the checkpoints and the reports
already ask here who writes and what the bare network is, so that DistributedDataParallel needs
changes in this file and in `engine/build.py` only.
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
