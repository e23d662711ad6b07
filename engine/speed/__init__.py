"""How fast a network is computed: the presets of `--speed`, and what `max` finds out by itself."""

from engine.speed.presets import (
    AMP_TYPES,
    PRESETS,
    Speed,
    autocast,
    choose_speed,
    fit,
    views_at_once,
)
from engine.speed.tuning import InferenceEncoder, compile_training

__all__ = [
    "AMP_TYPES",
    "PRESETS",
    "InferenceEncoder",
    "Speed",
    "autocast",
    "choose_speed",
    "compile_training",
    "fit",
    "views_at_once",
]
