"""Files that appear whole or not at all: the one place that writes, then renames."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def written_whole(
    path: Path, mode: str = "wb", sync: bool = False, shared: bool = False
) -> Iterator[IO]:
    """A file to write in, that becomes `path` at the end of the block; missing folders are made.

    Killed at any moment, or after an error such as a full disk (OSError), the earlier file is still
    there, whole, and after an error nothing else is left.

    Args:
        mode: "w" (UTF-8) or "wb".
        sync: also write it, and its name, to the disk itself.
        shared: several processes may write `path` at once; the last one counts.
    """
    # write under another name
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{uuid.uuid4().hex[:8]}" if shared else ""
    temporary = path.with_name(f"{path.name}{own}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        # rename
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too
        finally:
            os.close(folder)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes a text file, whole or not at all; several processes may write the same."""
    with written_whole(path, "w", shared=True) as file:
        file.writelines(line + "\n" for line in lines)
