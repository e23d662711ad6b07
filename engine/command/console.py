"""What is printed: names from outside cannot steer a terminal, and no output ends no work."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

from datasets.files import printable

# What tqdm moves a bar with: to the line's begin, and a line up.
_MOVES = re.compile(r"(\r|\x1b\[A)")


class Console:
    """stdout or stderr, which drops what cannot be written, and escapes what a terminal obeys.

    Newlines, tabs and the movements of progress bars pass. Whatever else is asked of it (isatty,
    fileno, encoding) the stream answers.

    Attributes:
        error: why something could not be written, if so.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        parts = _MOVES.split(text)  # every second one is a movement
        parts[::2] = map(printable, parts[::2])
        encoding = self.stream.encoding or "utf-8"
        shown = "".join(parts).encode(encoding, "backslashreplace").decode(encoding)
        with self._tolerant():
            self.stream.write(shown)
        return len(text)

    def flush(self) -> None:
        with self._tolerant():
            self.stream.flush()

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # a full disk, or a reader that has gone
            self.error = error

    def end(self) -> None:
        """Writes what waits; what cannot be written would else fail once more as Python ends."""
        self.error = None
        self.flush()
        if self.error is not None:
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())
                os.close(null)


@contextlib.contextmanager
def console() -> Iterator[None]:
    """stdout and stderr as `Console` has them; a full disk is said at the end on stderr."""
    own = [Console(stream) if stream else None for stream in (sys.stdout, sys.stderr)]
    with contextlib.redirect_stdout(own[0]), contextlib.redirect_stderr(own[1]):
        try:
            yield
        finally:
            out, err = own
            lost = out.error if out else None
            if out:
                out.end()
                lost = out.error or lost
            if lost is not None and lost.errno != errno.EPIPE:
                print(f"warning: not all output was written ({lost.strerror})", file=sys.stderr)
            if err:
                err.end()
