"""How long a clip takes in each format, on this machine."""

import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch

from engine.exporting.deployed import Deployed
from engine.exporting.export import Exported


def measure_latency(
    deployed: Deployed, files: Sequence[Exported], clips: np.ndarray, repeats: int
) -> list[dict]:
    """A row for PyTorch and for each file: the median and the range of milliseconds for `clips`.

    All take turns, so that whatever slows the machine for a while slows all; the first is left out.
    """

    def pytorch(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return deployed(torch.from_numpy(frames)).numpy()

    runs = {"PyTorch": pytorch} | {file.format: file.run for file in files}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(clips)
            taken[name].append(1000 * (time.perf_counter() - start))
    base = median(taken["PyTorch"][1:])
    return [
        {
            "format": name,
            "ms": median(turns[1:]),
            "from": min(turns[1:]),
            "to": max(turns[1:]),
            "times as fast": base / median(turns[1:]),
        }
        for name, turns in taken.items()
    ]
