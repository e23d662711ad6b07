"""What lies in the frame folders, by names alone: one listing a folder, no look at any file."""

import os
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.sources.frames import FrameNames

KINDS = ("rgb", "flow_x", "flow_y")


@dataclass(frozen=True)
class Folder:
    """The numbers of a frame folder's images, ascending.

    Attributes:
        rgb, flow_x, flow_y: a range from 1 where all is as it should be.
        other: a file in it that is no image of ours, where it holds no image of ours at all.
    """

    rgb: Sequence[int]
    flow_x: Sequence[int]
    flow_y: Sequence[int]
    other: str = ""

    def of(self, modality: str) -> Sequence[int]:
        """The numbers of complete images of a modality."""
        return self.rgb if modality == "rgb" else common(self.flow_x, self.flow_y)

    def kinds(self, modality: str) -> dict[str, Sequence[int]]:
        """What files a modality has -> their numbers."""
        names = KINDS[:1] if modality == "rgb" else KINDS[1:]
        return {name: getattr(self, name) for name in names}


def common(first: Sequence[int], second: Sequence[int]) -> Sequence[int]:
    return first if first == second else sorted(set(first) & set(second))


class Surveyor:
    """Lists frame folders of one naming; the expected names are made once for all folders."""

    def __init__(self, names: FrameNames):
        self._kinds = [
            (names.rgb, names.rgb_suffixes),
            (names.flow_x, names.flow_suffixes),
            (names.flow_y, names.flow_suffixes),
        ]
        self._expected: dict[tuple[str, str], list[str]] = {}
        self._lock = threading.Lock()  # folders may be listed by several threads

    def look(self, path: Path) -> Folder | None:
        """What lies in a folder, None if there is none."""
        try:
            files = set(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        text = "\n".join(["", *files])  # counting in it is faster than going through the names
        rgb, x, y = (self._numbers(files, text, *kind) for kind in self._kinds)
        return Folder(rgb, x, y, "" if rgb or x or y else min(files, default=""))

    def _numbers(
        self, files: set[str], text: str, pattern: str, suffixes: tuple[str, ...]
    ) -> Sequence[int]:
        prefix = pattern.split("{")[0]
        number = text.count("\n" + prefix)
        for suffix in suffixes:
            with self._lock:
                known = self._expected.setdefault((pattern, suffix), [])
                known += [pattern.format(n) + suffix for n in range(len(known) + 1, number + 1)]
            if files.issuperset(known[:number]):
                return range(1, number + 1)
        found = set()
        for file in files:
            match = re.fullmatch(re.escape(prefix) + r"(\d+)(\D.*)?", file)
            if match and (match[2] or "") in suffixes:
                if file == pattern.format(int(match[1])) + (match[2] or ""):
                    found.add(int(match[1]))
        return sorted(found)


def find_unlisted(root: Path, listed: Collection[str], surveyor: Surveyor) -> Iterator[str]:
    """The folders below `root` that hold images and are in no list."""
    parents = {str(parent) for folder in listed for parent in PurePosixPath(folder).parents}

    def walk(relative: str) -> Iterator[str]:
        with os.scandir(root / relative) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
        for name in names:
            folder = str(PurePosixPath(relative) / name)
            if folder in parents:
                yield from walk(folder)
            elif folder not in listed:
                content = surveyor.look(root / folder)
                if content and (content.rgb or content.flow_x or content.flow_y):
                    yield folder
                else:
                    yield from walk(folder)

    return walk(".")
