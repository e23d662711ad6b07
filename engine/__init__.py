"""The engine: everything that trains, evaluates and reports, used by the scripts alone."""

__version__ = "1.0.0"
