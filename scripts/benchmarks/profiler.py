"""What a pass consists of: PyTorch's operators, and the kernels that oneDNN chose for them."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

SHOWN = 10


def profile_step(step: Callable[[], object], device: torch.device, trace: Path) -> dict[str, list]:
    """Runs a pass twice: writes a Chrome trace of the first, counts oneDNN's kernels in the second.

    Returns the costliest rows of both, as `print_profile` shows them.
    """
    # operators
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities) as profiler:
        step()
    profiler.export_chrome_trace(str(trace))
    found = {
        (event.key,): (
            event.count,
            getattr(event, f"self_{'device' if on_gpu else 'cpu'}_time_total"),
        )
        for event in profiler.key_averages()
    }
    operators = costliest(("operator",), {key: (n, us / 1000) for key, (n, us) in found.items()})
    # kernels
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return {"operators": operators, "kernels": []}
    return {"operators": operators, "kernels": onednn_kernels(_verbose(step))}


def _verbose(step: Callable[[], object]) -> str:
    """What oneDNN prints during a pass; it is C code, so it prints to the descriptor."""
    with tempfile.TemporaryFile() as file:
        stdout = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                step()
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        file.seek(0)
        return file.read().decode(errors="replace")


def onednn_kernels(text: str) -> list[dict]:
    """The costliest kernels of oneDNN's verbose lines.

    `onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx2,forward_training,...,mb2_ic3...,9.6`;
    fields before `exec` differ between versions. The last two are the shape and the milliseconds.
    """
    found: dict[tuple, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for line in text.splitlines():
        fields = line.split(",")
        if not line.startswith(("onednn_verbose", "dnnl_verbose")) or "exec" not in fields:
            continue
        what = fields[fields.index("exec") + 2 :]  # after the engine
        if len(what) >= 5:
            key = (*what[:3], what[-2])
            number, total = found[key]
            found[key] = number + 1, total + float(what[-1])
    return costliest(("primitive", "implementation", "propagation", "shape"), found)


def costliest(names: tuple[str, ...], found: dict[tuple, tuple[int, float]]) -> list[dict]:
    """The rows with most milliseconds of `key -> (calls, milliseconds)`, and their share of all."""
    total = sum(ms for _, ms in found.values()) or 1.0
    return [
        dict(zip(names, key, strict=True)) | {"calls": number, "ms": ms, "%": 100 * ms / total}
        for key, (number, ms) in sorted(found.items(), key=lambda item: -item[1][1])[:SHOWN]
    ]


def print_profile(found: dict[str, list], trace: Path) -> None:
    print(f"\nThe {SHOWN} costliest operators of one pass; all of them: {trace} (ui.perfetto.dev)")
    print(tabulate(found["operators"], "keys", floatfmt=".2f"))
    if found["kernels"]:
        print(f"\nThe {SHOWN} costliest kernels of oneDNN")
        print(tabulate(found["kernels"], "keys", floatfmt=".2f"))
