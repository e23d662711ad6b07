"""The engine: everything that trains, evaluates and reports, used by the scripts alone."""

__version__ = "1.0.0"


class UsageError(ValueError):
    """A command line that cannot be carried out; the message says what to change."""
