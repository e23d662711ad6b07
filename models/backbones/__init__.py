"""THE table of backbones: the rows of this folder's modules.

To add a backbone, write `models/backbones/x.py` with `ROWS = (Backbone(...),)`.
"""

from importlib import import_module
from pkgutil import iter_modules

from models.backbones.base import collect

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
_ROWS = [row for module in _MODULES for row in getattr(module, "ROWS", ())]
BACKBONES = collect(_ROWS, "name", "naming")
