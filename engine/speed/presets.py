"""The presets: number type, memory layout, compilation; and what a device can do of them."""

import ctypes
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from engine import UsageError
from engine.config import SpeedConfig

OLDEST_TORCH = "2.11"  # 2.9 and 2.10 come with an old cuDNN
PRESETS = ("exact", "fast", "max")
AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


@dataclass(frozen=True)
class Speed:
    """How a network is computed on a device.

    Attributes:
        preset: of PRESETS.
        amp: of AMP_TYPES: the number type of products; "off" is float32.
        channels_last: whether a position's channels lie side by side in memory.
        compile: whether variants that cost a warm-up are tried.
    """

    preset: str
    amp: str
    channels_last: bool
    compile: bool


def choose_speed(
    config: SpeedConfig, device: torch.device, factorised_training: bool = False
) -> Speed:
    """What the flags mean on a device; prints a line where a preset is not to be had there.

    `factorised_training`: it is for training a backbone of convolutions of 1x3x3 and 3x1x1, whose
    backward pass takes twice as long in channels-last with AVX2 (oneDNN 3.13).

    Raises UsageError for half precision that the device has no fast kernels for, and for a torch
    that is too old.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise UsageError(
            f"torch {torch.__version__} is too old, install {OLDEST_TORCH} or later: before it, "
            "3D convolutions in bfloat16 are 10 to 20 times slower on GPUs"
        )
    has_bf16 = computes_bf16(device)
    default = "fast" if device.type == "cuda" and has_bf16 else "exact"
    preset, amp = config.speed or default, config.amp
    # number type
    if amp == "fp16" and device.type == "cpu":
        raise UsageError(
            "--amp fp16 needs a GPU: CPUs have no fast 3D convolution in float16; "
            "use --amp bf16 where the CPU has AVX-512-BF16 or AMX, else --amp off"
        )
    if amp is None:
        amp = "bf16" if preset != "exact" and has_bf16 else "off"
        if preset != "exact" and not has_bf16:
            print(f"--speed {preset}: {_lack(device)}; computing in float32", flush=True)
    elif amp == "bf16" and not has_bf16:
        print(f"warning: --amp bf16: {_lack(device)}; float32 is faster here", flush=True)
    # memory layout; that of float32 on GPUs stays cuDNN's usual one
    channels_last = config.channels_last
    if channels_last is None:
        slow = factorised_training and torch.backends.cpu.get_cpu_capability() == "AVX2"
        on_cpu = device.type == "cpu" and not slow
        channels_last = on_cpu or device.type == "cuda" and amp != "off"
    compiles = preset == "max" if config.compile is None else config.compile
    # the process
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda" and preset == "exact":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # its default is tf32
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # torch wants both alike
    return Speed(preset, amp, channels_last, compiles)


def views_at_once(device: torch.device) -> int:
    """Views in a batch where a network is applied: enough to fill a GPU; on a CPU the size from
    which on a view takes no less time (docs/PERFORMANCE.md)."""
    return 10 if device.type == "cuda" else 4


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has units for products of bfloat16 numbers."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def _lack(device: torch.device) -> str:
    units = " (AVX-512-BF16 or AMX)" if device.type == "cpu" else ""
    return f"this {device.type} computes no bfloat16 natively{units}"


def fit(model: nn.Module, speed: Speed) -> nn.Module:
    """The model with its convolutions' weights in the layout that its input will have.

    Weights of 1x1x1 are in both layouts at once; they get the strides that their gradients have.
    """
    if speed.channels_last:
        for parameter in model.parameters():
            if parameter.dim() == 5:
                new = torch.empty_like(parameter.data, memory_format=torch.channels_last_3d)
                parameter.data = new.copy_(parameter.data)
    return model


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Within it products are computed in the type that `amp` names."""
    dtype = AMP_TYPES[amp]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@cache
def keep_freed_memory() -> bool:
    """Lets glibc keep freed memory for the next layer, instead of giving it back to the system.

    Fresh memory is zeroed page by page: without this a quarter of a forward pass
    (docs/PERFORMANCE.md). Another allocator, or the user's own settings, are left alone.
    Returns whether that is so now.
    """
    chosen = "LD_PRELOAD" in os.environ or any(
        name in os.environ for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
    )
    if chosen or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
