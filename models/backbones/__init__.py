"""THE table of backbones: the rows of this folder's modules.

To add a backbone, write `models/backbones/x.py` with `ROWS = (Backbone(...),)`.
"""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from models.backbones.base import Backbone


def collect(rows: Iterable[Backbone]) -> dict[str, Backbone]:
    """Name -> row; raises ValueError if two rows share a name or a naming."""
    table = {}
    for row in rows:
        if any(row.name == other.name or row.naming == other.naming for other in table.values()):
            raise ValueError(f"backbone {row.name} ({row.naming}) is registered twice")
        table[row.name] = row
    return table


_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
BACKBONES = collect(row for module in _MODULES for row in getattr(module, "ROWS", ()))
