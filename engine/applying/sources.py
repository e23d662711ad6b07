"""What a user names -> sources of video: files, folders, globs, cameras, pipes, URLs."""

import glob
import os
import re
import select
import stat
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av

from datasets.files import DataError
from datasets.sources.videos import VIDEO_SUFFIXES

STANDARD_INPUT = "-"
NOT_VIDEO = ("tty", "image2", "bin", "gif_pipe", "subviewer", "srt", "webvtt", "ass")


@dataclass(frozen=True)
class VideoSource:
    """One video.

    Attributes:
        name: what messages and results call it: the file's path, the URL, "camera 0", "-".
        kind: "file", "pipe", "camera" or "url".
    """

    name: str
    kind: str

    @property
    def seekable(self) -> bool:
        """Whether it can be read twice."""
        return self.kind == "file"

    @property
    def stem(self) -> str:
        """A name for files about it."""
        path = Path(self.name).stem if self.seekable else self.name
        return re.sub(r"[^\w.-]+", "_", path).strip("_.") or "input"

    def open(self, deadline: float) -> av.container.InputContainer:
        """Opens it; raises DataError where it is none, or gives nothing for `deadline` seconds."""
        try:
            if self.kind == "camera":
                device = f"/dev/video{self.name.removeprefix('camera ')}"
                container = av.open(device, format="v4l2", timeout=deadline)
            elif self.kind == "pipe":
                container = av.open(_Pipe(self.name, deadline))
            else:
                container = av.open(self.name, timeout=deadline)
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DataError(f"cannot be opened as a video: {reason}") from None
        if set(container.format.name.split(",")) & set(NOT_VIDEO):
            container.close()
            raise DataError("is no video")
        return container


class _Pipe:
    """A pipe that PyAV reads from: it waits for `deadline` seconds, and no longer."""

    def __init__(self, name: str, deadline: float):
        self.deadline = deadline
        if name == STANDARD_INPUT:
            self.descriptor = sys.stdin.fileno()
        else:  # opening a pipe that nobody writes to would wait for ever
            self.descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        self.begun = False

    def read(self, size: int) -> bytes:
        end = time.monotonic() + self.deadline
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.descriptor], [], [], left)[0]:
                break
            try:
                data = os.read(self.descriptor, size)
            except BlockingIOError:
                data = b""
            self.begun = self.begun or bool(data)
            if data or self.begun or self.descriptor == 0:
                return data
            time.sleep(0.05)  # nobody has opened its other end yet
        raise TimeoutError(None, f"nothing came for {self.deadline:.0f} seconds")


def find_sources(named: Iterable[str]) -> tuple[list[VideoSource], list[str]]:
    """The sources that a user's words mean, in order, each once; and what is wrong with the rest.

    A folder stands for the video files in it and below, a pattern for what it matches.
    """
    found: dict[VideoSource, None] = {}
    faults = []
    for word in named:
        try:
            found |= dict.fromkeys(_sources(word))
        except DataError as error:
            faults.append(f"{word}: {error}")
    return list(found), faults


def _sources(word: str) -> list[VideoSource]:
    if word == STANDARD_INPUT:
        return [VideoSource(word, "pipe")]
    if re.fullmatch(r"\d{1,2}", word) and not os.path.lexists(word):
        return [VideoSource(f"camera {word}", "camera")]
    if re.match(r"[a-z][a-z0-9+]+://", word):
        return [VideoSource(word, "url")]
    path = Path(word).expanduser()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return _matches(path, getattr(error, "strerror", None) or str(error))
    if stat.S_ISDIR(mode):
        videos = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            raise DataError("no video file in this folder or below")
        return [_file(video) for video in videos]
    return [_file(path)]


def _file(path: Path) -> VideoSource:
    is_pipe = path.is_fifo() or path.is_char_device()
    return VideoSource(str(path), "pipe" if is_pipe else "file")


def _matches(pattern: Path, reason: str) -> list[VideoSource]:
    names = sorted(glob.glob(str(pattern), recursive=True)) if glob.has_magic(str(pattern)) else []
    if not names:
        raise DataError(reason if not glob.has_magic(str(pattern)) else "matches no file")
    return [source for name in names for source in _sources(name)]
