"""Resident memory of this process; as a program, that of a whole script.

    python scripts/benchmarks/memory.py FILE SCRIPT FLAGS ...

runs SCRIPT as Python would and writes the peak of its resident memory, in bytes, to FILE. What the
system says of an ended child is no less than the peak of the process that started it.
"""

import contextlib
import re
import runpy
import sys
from pathlib import Path

PEAK, NOW = "VmHWM", "VmRSS"


def resident(key: str = PEAK) -> float:
    """Bytes: the peak, or what is resident NOW, which outside Linux is also the peak."""
    status = Path("/proc/self/status")
    found = re.search(rf"{key}:\s*(\d+)", status.read_text() if status.exists() else "")
    if found:
        return 1024.0 * int(found[1])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


def forget_peak() -> None:
    """From now on the peak is that of what follows, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    _, file, script, *flags = sys.argv
    sys.argv = [script, *flags]
    sys.path[0] = str(Path(script).parent)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        Path(file).write_text(str(resident()))
