"""The engine: everything that trains, evaluates and reports, used by the scripts alone."""

__version__ = "1.0.0"
DEADLINE = 600.0  # seconds that a run waits for a sign of life of a loader process or a server


class UsageError(ValueError):
    """A command line that cannot be carried out; the message says what to change."""
