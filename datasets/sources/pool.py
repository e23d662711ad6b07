"""Many videos at once, read or made, in processes of one thread each."""

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2
from tqdm import tqdm

_function: Callable[[Any], Any]  # in a process of a pool: what it calls


def in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], processes: int, torch: bool = False
) -> list[Any]:
    """function(item) of each item, in order, below a bar of videos.

    Processes end at once when their parent ends, is interrupted, or one of them raises.

    Args:
        torch: whether the function computes with PyTorch: its processes are then fresh ones,
            because a forked one cannot use the GPU.
    """
    context = multiprocessing.get_context("spawn" if torch else None)
    with ProcessPoolExecutor(processes, context, _begin, (function, torch)) as pool:
        try:
            # not pool.map: it cancels what waits, and a pool whose process has ended fails at that
            futures = [pool.submit(_call, item) for item in items]
            made = (future.result() for future in futures)
            bar = tqdm(made, "videos", len(items), unit="video", dynamic_ncols=True, disable=None)
            return list(bar)
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def end_with_parent() -> None:
    """Ends this process when its parent ends, however that ends; on Linux alone.

    Else a process whose parent was killed waits for ever, or works beside the one that resumes.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _begin(function: Callable[[Any], Any], torch: bool) -> None:
    """Begins a process: Ctrl-C ends it at once, and its parent tells of it."""
    global _function
    _function = function
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    cv2.setNumThreads(1)
    if torch:
        from torch import set_num_threads

        set_num_threads(1)


def _call(item: Any) -> Any:
    return _function(item)
