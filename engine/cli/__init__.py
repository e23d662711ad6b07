"""Every flag, once: parsed into the dataclasses of engine/config.py. Only scripts import this."""

from engine.cli.applying import (
    add_network_flags,
    chosen_network,
    prediction_config,
    prediction_parser,
)
from engine.cli.base import (
    data_parent,
    data_places,
    data_script_parser,
    fill,
    new_parser,
    places_parent,
    split_flags,
)
from engine.cli.caching import caching_parser
from engine.cli.flag_types import (
    above_zero,
    fraction,
    non_negative,
    not_below_zero,
    path,
    plain_name,
    positive,
    time_order,
)
from engine.cli.parsers import add_speed_flags, training_config, training_parser
from engine.cli.reporting import report_parser
from engine.cli.testing import single_stream_parser, testing_parser

__all__ = [
    "above_zero",
    "add_network_flags",
    "add_speed_flags",
    "caching_parser",
    "chosen_network",
    "data_parent",
    "data_places",
    "data_script_parser",
    "fill",
    "fraction",
    "new_parser",
    "non_negative",
    "not_below_zero",
    "path",
    "places_parent",
    "plain_name",
    "positive",
    "prediction_config",
    "prediction_parser",
    "report_parser",
    "single_stream_parser",
    "split_flags",
    "testing_parser",
    "time_order",
    "training_config",
    "training_parser",
]
