"""Frame folders by the names in them: which folders there are, which images each one holds."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

MODALITIES = ("rgb", "flow")


@dataclass(frozen=True)
class FrameNames:
    """File names of a dataset's images; `{}` is the number, and each name may lack its suffix.

    Attributes:
        rgb, flow_x, flow_y: patterns without a suffix.
        rgb_suffixes, flow_suffixes: suffixes to look for, the usual one first.
    """

    rgb: str = "img_{:05d}"
    flow_x: str = "flow_x_{:05d}"
    flow_y: str = "flow_y_{:05d}"
    rgb_suffixes: tuple[str, ...] = (".jpg",)
    flow_suffixes: tuple[str, ...] = (".jpg", "")

    def patterns(self, modality: str) -> tuple[str, ...]:
        """The name patterns of one time step: one file for "rgb", two for "flow"."""
        return (self.rgb,) if modality == "rgb" else (self.flow_x, self.flow_y)

    def suffixes(self, modality: str) -> tuple[str, ...]:
        return self.rgb_suffixes if modality == "rgb" else self.flow_suffixes

    def find(self, folder: Path, modality: str, number: int) -> list[Path]:
        """The files of one time step that exist, one for each pattern at most."""
        found = []
        for pattern in self.patterns(modality):
            candidates = (folder / (pattern.format(number) + s) for s in self.suffixes(modality))
            found += islice(filter(os.path.exists, candidates), 1)
        return found


USUAL_NAMES = FrameNames()


@dataclass(frozen=True)
class Folder:
    """The numbers of a frame folder's images, ascending; a range from 1 where none is missing.

    Attributes:
        rgb, flow_x, flow_y: those of each pattern.
        other: a file in it that is no image of ours, where it holds no image of ours at all.
    """

    rgb: Sequence[int]
    flow_x: Sequence[int]
    flow_y: Sequence[int]
    other: str = ""

    def of(self, modality: str) -> Sequence[int]:
        """The numbers of complete images of a modality."""
        if modality == "rgb":
            return self.rgb
        if self.flow_x == self.flow_y:
            return self.flow_x
        return sorted(set(self.flow_x) & set(self.flow_y))

    def planes(self, modality: str) -> dict[str, Sequence[int]]:
        """What files a modality has -> their numbers."""
        if modality == "rgb":
            return {"rgb": self.rgb}
        return {"flow_x": self.flow_x, "flow_y": self.flow_y}


def list_folder(path: Path, names: FrameNames) -> Folder | None:
    """What lies in a folder, from one listing and no look at any file; None without a folder."""
    try:
        files = os.listdir(path)
    except PermissionError:
        raise
    except (OSError, ValueError):  # none, a file, a loop of links, a name that is too long
        return None
    # Searched as a whole: datasets have millions of files. No name holds a "/".
    text = "/".join(["", *files, ""])
    rgb, x, y = (
        _numbers(text, pattern, names.suffixes(modality))
        for modality in MODALITIES
        for pattern in names.patterns(modality)
    )
    return Folder(rgb, x, y, "" if rgb or x or y else min(files, default=""))


def _numbers(text: str, pattern: str, suffixes: tuple[str, ...]) -> Sequence[int]:
    prefix = pattern.split("{")[0]
    digits = len(pattern.format(0)) - len(prefix)
    endings = "|".join(map(re.escape, suffixes))
    number = f"[0-9]{{{digits}}}|[1-9][0-9]{{{digits},}}"
    name = rf"/{re.escape(prefix)}({number})(?:{endings})(?=/)"
    numbers = sorted({*map(int, re.findall(name, text))})
    whole = range(1, len(numbers) + 1)
    return whole if numbers == list(whole) else numbers


def count_images(folder: Path, names: FrameNames, modality: str) -> list[int]:
    """How many images there are of each pattern, by listing the folder."""
    found = list_folder(folder, names) or Folder((), (), ())
    return [len(numbers) for numbers in found.planes(modality).values()]


def find_frame_folders(
    root: Path, names: FrameNames, modalities: Sequence[str] = MODALITIES
) -> list[str]:
    """The folders below `root` that hold a first image of a modality, sorted; no hidden ones."""
    firsts = {
        pattern.format(1) + suffix
        for modality in modalities
        for pattern in names.patterns(modality)
        for suffix in names.suffixes(modality)
    }
    found = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        if not firsts.isdisjoint(files):
            found.append(Path(folder).relative_to(root).as_posix())
    return sorted(found)
