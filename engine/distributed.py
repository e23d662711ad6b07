"""Several processes, each with its share of every batch; with one, every helper answers for it.

torchrun starts them and tells each its place in environment variables; `processes()` joins them,
by gloo on CPUs and NCCL on GPUs. Whatever is decided on a CPU (signals, sums of numbers) goes over
gloo: it is small, and GPUs need not wait for it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from engine import UsageError


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun started, if it did; only the first one prints results."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    has_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
    store, rank, world_size = next(rendezvous("env://"))
    # torchrun may keep the store over a restart: addresses of dead processes must not be read.
    store = dist.PrefixStore(f"start {_restarts()}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    with contextlib.ExitStack() as stack:
        if not is_main():
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        yield
    dist.destroy_process_group()  # not after an error: the others may wait for us


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all, 0 with one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def local_rank() -> int:
    """Index of this process on its machine: which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_distributed() else 0


def was_restarted() -> bool:
    """Whether torchrun started these processes anew after a failure (`--max-restarts`)."""
    return is_distributed() and _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def launcher() -> list[str]:
    """The words that start a script as this one was started."""
    if not is_distributed():
        return ["python"]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    machines = world_size() // local
    return ["torchrun", f"--nproc_per_node={local}", *([f"--nnodes={machines}"] * (machines > 1))]


def choose_device(name: str | None) -> torch.device:
    """The device asked for, else a GPU if there is one; raises UsageError for one that is not.

    Each of a machine's processes has a GPU of its own.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank())
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot use --device {name}: {reason}") from None
    torch.backends.cudnn.benchmark = True  # clips of one size: the search for algorithms pays
    return device


def wait_for_all() -> None:
    if is_distributed():
        gather(None)


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """Each value's sum over all processes, alike on every one."""
    if world_size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def sum_tensor(tensor: torch.Tensor) -> None:
    """Makes a tensor the sum over all processes, alike on every one; no CPU waits for a GPU."""
    if world_size() > 1:
        dist.all_reduce(tensor)


def gather(value: Any) -> list[Any]:
    """Every process's value, by rank, on every process."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value, group=_cpu_group())
    return values


_cpu_groups: list[dist.ProcessGroup] = []


def _cpu_group() -> dist.ProcessGroup | None:
    """Where objects travel: with NCCL among the backends they would go by way of the GPUs."""
    if dist.get_backend() == "gloo":
        return None
    if not _cpu_groups:
        _cpu_groups.append(dist.new_group(backend="gloo"))
    return _cpu_groups[0]


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The network that averages gradients over the processes; the network itself with one."""
    if not is_distributed():
        return model
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, ids, gradient_as_bucket_view=True)


def gradient_sync(network: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Around a batch: gradients travel only at the `last` one before a step."""
    if last or not isinstance(network, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return network.no_sync()


def share_buffers(model: nn.Module) -> None:
    """Gives every process the first one's batch statistics, which are those that are saved."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def lost_a_process(error: RuntimeError) -> bool:
    """Whether an error means that another process has ended."""
    return is_distributed() and (isinstance(error, dist.DistError) or "gloo" in str(error))


def lacks_memory(error: Exception) -> bool:
    """Whether an error means that there was no memory; torch has a type for that on GPUs alone."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def who() -> str:
    """In front of an error message: which of several processes it is about."""
    return f"process {rank()} of {world_size()}: " if world_size() > 1 else ""


def report_error(message: str) -> None:
    """Prints an error of this process; every process may."""
    print(f"{who()}error: {message}", file=sys.stderr, flush=True)
