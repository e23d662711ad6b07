"""What a checkpoint says beside its weights, and whether it can be believed: types and ranges.

A key may be missing (the reference implementation's files have few), but never nonsense.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.metrics import PassResult
from video_transforms import INVERTED, NO_FLIP, PLAIN


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_progress(value: Any) -> bool:
    if value is None:
        return True
    if not _is_named(value) or not {"result", "permutation"} <= value.keys():
        return False
    result, order = value["result"], value["permutation"]
    counts = {field.name: field.type for field in fields(PassResult)}
    return (
        isinstance(order, Tensor)
        and order.dtype == torch.int64
        and order.ndim == 1
        and sorted(order.tolist()) == list(range(len(order)))
        and _is_named(result)
        and result.keys() <= counts.keys()
        and all(_is_finite(number) and number >= 0 for number in result.values())
        and all(_is_count(number) for key, number in result.items() if counts[key] is int)
        and result.get("videos", 0) <= len(order)
    )


# Key -> (what it must be, how to tell).
EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format_version": ("a whole number", _is_count),
    "epoch": ("a whole number", _is_count),
    "arch": ("a name", lambda value: isinstance(value, str)),
    "dataset": ("a name", lambda value: isinstance(value, str)),
    "split": ("a whole number", _is_count),
    "seed": ("a whole number", _is_count),
    "best_prec1": ("a number", _is_number),
    "best_loss": ("a number", _is_number),
    "best_ema": ("a number", _is_number),
    "class_names": ("a list of names", _is_names),
    "input": ("a table of names", _is_named),
    "flags": ("a table of names", _is_named),
    "fingerprint": ("a fingerprint of data", _is_named),
    "mirror": ("a mirror rule", lambda value: value in (PLAIN, INVERTED, NO_FLIP)),
    "flow_bound": ("a number or nothing", lambda value: value is None or _is_finite(value)),
    "optimizer": ("an optimizer's state", _is_named),
    "scheduler": ("a schedule's state", _is_named),
    "learner": ("a table of names", _is_named),
    "progress": ("a place in an epoch", _is_progress),
    "random_states": ("a list, one for each process", lambda value: isinstance(value, list)),
}


def is_like(value: Any, ours: Any) -> bool:
    """Whether a saved state is built as ours: the same fields, numbers where we have numbers."""
    if isinstance(ours, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and is_like(value[key], own) for key, own in ours.items()
        )
    if isinstance(ours, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(ours)
        return same and all(map(is_like, value, ours))
    if isinstance(ours, bool | str):
        return isinstance(value, type(ours))
    if ours is None:
        return value is None or isinstance(value, bool) or _is_number(value)
    return _is_number(value)


def metadata_faults(content: Mapping[str, Any]) -> list[str]:
    """What of a checkpoint's content is not what its key promises, a line each."""
    return [
        f"{key}: {_shown(content[key])} in the file, where {what} belongs"
        for key, (what, is_right) in EXPECTED.items()
        if key in content and not is_right(content[key])
    ]


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."
