"""Files and names from outside: read with limits, checked before use; and files written whole."""

import codecs
import contextlib
import errno
import io
import os
import stat
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import msgspec

T = TypeVar("T")
MOST_TEXT = 256 << 20  # bytes of a text or JSON file
BLANKS = " \t\r\n\f\v"  # what a line may begin and end with
MOST_NAME = 255  # bytes of one name, as file systems have it
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# without waiting for a pipe's writer; whole bytes on Windows
_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DataError(ValueError):
    """Something is wrong with the data; the message names it and says what to do."""


def check_name(name: str, what: str, nested: bool = False) -> str:
    """The name, which may become part of a path; raises DataError, with `what` it names, if not.

    Refused are names that lead out of a folder or that lists and terminals cannot hold: absolute
    ones, "..", names of dots alone, empty ones, those with control characters, line separators
    or blanks at an end, and those that are not UTF-8.

    Args:
        nested: allow "/" between several such names.
    """
    fault = None
    names = name.split("/") if nested else [name]
    if name.startswith("/") or not nested and ("/" in name or os.sep in name):
        fault = "it must be a plain name inside its folder"
    elif any(not part.strip(".") for part in names):
        fault = "a name of dots alone, or an empty one, is no name"
    elif any(part != part.strip() for part in names):
        fault = "it begins or ends with a blank"
    elif any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        fault = "it holds control characters, or bytes that are not UTF-8"
    elif any(len(part.encode()) > MOST_NAME for part in names):
        fault = f"it is longer than {MOST_NAME} bytes"
    if fault:
        raise DataError(f"{what} {printable(repr(name))}: {fault}; rename it")
    return name


def normal_name(name: str) -> str:
    """A relative path in its shortest form: "./a//b" and "a/b" are the same video."""
    return PurePosixPath(name).as_posix()


def printable(text: str, lines: bool = True) -> str:
    """The text with what a terminal would obey, not show, written as escapes.

    Ends of lines and tabs stay, unless `lines` is False: one name is one line.
    """
    stays = "\n\t" * lines
    return "".join(
        c if c in stays or unicodedata.category(c) not in ("Cc", "Cs") else ascii(c)[1:-1]
        for c in text
    )


def check_file(path: Path, what: str = "file") -> Path:
    """The path of a regular file, or of a link to one.

    Raises DataError for one that is missing, a folder, a pipe, a device, a socket, a dangling link
    or a loop of links: opening those could wait for ever.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        linked = os.path.islink(path)
        why = "the link leads to no file" if linked else "there is no such file"
        raise DataError(f"no {what} {path}: {why}") from None
    except (OSError, ValueError) as error:  # a loop of links; a NUL in the name
        raise DataError(f"cannot read {what} {path}: {error}") from None
    if kind != stat.S_IFREG:
        raise DataError(f"the {what} {path} is {_KINDS.get(kind, 'no regular file')}, not a file")
    return path


def read_limited(path: Path, most: int = MOST_TEXT, what: str = "file") -> bytes:
    """A regular file's bytes; raises DataError if it cannot be read or holds more than `most`."""
    try:
        with open(check_file(path, what), "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > most:
        raise DataError(f"the {what} {path} is larger than {most} bytes; it is not read")
    return content


def read_bytes(path: Path | str, most: int = MOST_TEXT) -> bytes:
    """The same with a single look at the opened file, for those of which millions are read.

    FileNotFoundError stays; all else that cannot be read, pipes and devices too, is a DataError.
    """
    try:
        descriptor = os.open(path, _AT_ONCE)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                kind = _KINDS.get(stat.S_IFMT(state.st_mode), "no regular file")
                raise DataError(f"{path} is {kind}, not a file")
            if state.st_size > most:
                raise DataError(f"{path} is larger than {most} bytes; it is not read")
            content = os.read(descriptor, state.st_size + 1)
            while len(content) < state.st_size and (more := os.read(descriptor, state.st_size)):
                content += more  # some file systems give a file in pieces
            return content
        finally:
            os.close(descriptor)
    except (FileNotFoundError, DataError):
        raise
    except (OSError, ValueError) as error:  # a loop of links, a socket; a NUL in the name
        raise DataError(f"cannot read {path}: {error}") from None


def read_text(path: Path, most: int = MOST_TEXT, what: str = "file") -> str:
    """A UTF-8 file's text, without a byte-order mark; raises DataError as `read_limited` does."""
    try:
        return read_limited(path, most, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: it is not UTF-8 ({error})") from None


def read_lines(path: Path, most: int = MOST_TEXT, what: str = "file") -> list[tuple[str, str]]:
    """("file:line", stripped line) of a text file's lines that are not blank.

    Only a line feed ends a line: other separators, such as U+2028, are part of it. A byte-order
    mark before a line is dropped: files that were joined have them inside.
    """
    lines = io.StringIO(read_text(path, most, what), newline="\n")
    stripped = ((n, line.lstrip("\ufeff").strip(BLANKS)) for n, line in enumerate(lines, 1))
    return [(f"{path}:{n}", line) for n, line in stripped if line]


def read_json(path: Path, kind: type[T], most: int = MOST_TEXT) -> T:
    """A JSON file as a typed record: a dataclass, or a type such as `dict[str, int]`.

    Raises DataError, with the value's place, for JSON that is malformed, nested too deep, or of
    other types.
    """
    return decode_json(read_limited(path, most), kind, str(path))


def decode_json(content: bytes, kind: type[T], name: str) -> T:
    """The same of bytes; `name` is the file's, for messages."""
    try:
        return msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8), type=kind)
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {name}: {error}") from None


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
    own = f".{uuid.uuid4().hex[:8]}" if shared else ""
    temporary = path.with_name(f"{path.name}{own}.tmp")
    with said_plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)  # of a killed run; or a link, that leads elsewhere
            mode = mode.replace("w", "x")
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


@contextlib.contextmanager
def said_plainly(path: Path) -> Iterator[None]:
    """An OSError of the block says "disk full" and the path where that is the reason."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise OSError(error.errno, "disk full", str(path)) from None
        raise


def check_writable(folder: Path) -> None:
    """Makes the folder and tries to write in it, before the work whose results it is to hold.

    Raises OSError, with the reason and the path, if it cannot.
    """
    with said_plainly(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes a text file, whole or not at all; several processes may write the same."""
    with written_whole(path, "w", shared=True) as file:
        file.writelines(line + "\n" for line in lines)
