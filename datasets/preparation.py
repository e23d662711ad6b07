"""The record of how a dataset's frames were made: `preparation.json` beside the frame folders."""

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import msgspec

from datasets.files import DataError, read_json, write_lines
from datasets.sources.folders import USUAL_NAMES, FrameNames, count_images

RECORD_FILE = "preparation.json"
UNFINISHED = ".unfinished"  # where, or under what ending, a file or folder is being written
MOST_RECORD = 1 << 20  # bytes
CLIP = 64  # frames of a clip of most networks
MOST_SIDE = 16384  # pixels of an image's width or height

Side = Annotated[int, msgspec.Meta(ge=1, le=MOST_SIDE)]
Quality = Annotated[int, msgspec.Meta(ge=1, le=100)]
Videos = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


@dataclass(frozen=True)
class Preparation:
    """How frames and flow were made, and what the videos were.

    Frames of different settings are not mixed. What the videos were is for people and networks:
    it decides nothing here, and earlier records do not hold it.

    Attributes:
        width, height: pixels that each frame is stretched to; None: frames that were there
            before, of whatever size.
        quality: of the JPEG files, 1..100.
        flow: a key of FLOW_ENGINES, or "none".
        bound: displacement in pixels that becomes 0 (negative) or 255 (positive).
        resampled: frames per second that all videos were brought to; None: frames as they came.
        fps: of the videos, frames per second, the median.
        decoded: the videos' most frequent size, "WxH" in pixels as players show them.
        videos: how many were measured.
        other_fps: how many of them have a rate more than 5 % from `fps`.
        changing: how many change their rate.
        turned: how many are upright where the frames lie, or the reverse.
        short: how many have fewer than CLIP frames.
    """

    width: Side | None = 340
    height: Side | None = 256
    quality: Quality = 95
    flow: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_-]{1,40}\Z")] = "dis"
    bound: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 20.0
    resampled: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None
    fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = field(default=None, compare=False)
    decoded: Annotated[str, msgspec.Meta(pattern=r"\A\d{1,6}x\d{1,6}\Z")] | None = field(
        default=None, compare=False
    )
    videos: Videos | None = field(default=None, compare=False)
    other_fps: Videos | None = field(default=None, compare=False)
    changing: Videos | None = field(default=None, compare=False)
    turned: Videos | None = field(default=None, compare=False)
    short: Videos | None = field(default=None, compare=False)

    @property
    def has_flow(self) -> bool:
        return self.flow != "none"

    def settings(self) -> dict[str, int | float | str | None]:
        """How frames and flow were made, without what the videos were."""
        made = {each.name: getattr(self, each.name) for each in fields(self) if each.compare}
        if self.resampled is None:  # earlier records do not hold it
            del made["resampled"]
        return made

    def __str__(self) -> str:
        known = {key: value for key, value in self.settings().items() if value is not None}
        return ", ".join(f"{key} {value}" for key, value in known.items())

    def write(self, frames: Path) -> None:
        facts = {key: value for key, value in asdict(self).items() if value is not None}
        write_lines(frames / RECORD_FILE, [json.dumps(self.settings() | facts, indent=2)])

    def remarks(self) -> dict[str, str]:
        """What a user should know of the videos: kind -> a line with its count."""
        of, lines = f"of {self.videos} videos", {}
        if self.turned and self.width and self.height:
            shapes = ("wider than high", "higher than wide")
            shape = shapes[self.width > self.height]
            lines["turned"] = (
                f"{self.turned} {of} are {shape} and are stretched to {self.width}x{self.height}; "
                f"for such videos give --width {self.height} --height {self.width}, or crop them"
            )
        if self.changing:
            lines["rate-changes"] = (
                f"{self.changing} {of} change their frame rate: every frame counts as one step in "
                "time, so that motion seems to change its speed; prepare them with --fps N"
            )
        if self.other_fps:
            lines["other-rate"] = (
                f"{self.other_fps} {of} have another frame rate than {self.fps:g} a second (the "
                "median): the same motion is faster or slower there; prepare them with --fps N"
            )
        if self.short:
            lines["short"] = (
                f"{self.short} {of} have fewer than the {CLIP} frames of most networks' clips; a "
                "clip repeats such a video. Networks of 16 or 32 frames need less "
                "(scripts/list_archs.py)"
            )
        return lines


def read_preparation(frames: Path) -> Preparation | None:
    """The record of a dataset's frames folder, None without one.

    Raises DataError for a record that is malformed, or that holds what no preparation writes.
    """
    path = frames / RECORD_FILE
    if not os.path.lexists(path):
        return None
    return check_preparation(
        read_json(path, dict[str, int | float | str | None], MOST_RECORD), str(path)
    )


def check_preparation(recorded: dict, name: str) -> Preparation:
    """The record of decoded JSON; raises DataError, with `name` it bears, if it is none."""
    if unknown := sorted(recorded.keys() - {field.name for field in fields(Preparation)}):
        raise DataError(f"cannot read {name}: '{unknown[0]}' is no setting of a preparation")
    try:
        return msgspec.convert(recorded, Preparation)
    except msgspec.ValidationError as error:
        raise DataError(f"cannot read {name}: {error}") from None


def start_preparation(frames: Path, preparation: Preparation) -> None:
    """Writes the record, or refuses to mix frames that were made in different ways."""
    earlier = read_preparation(frames)
    if earlier is None:
        preparation.write(frames)
    elif earlier != preparation:
        raise DataError(
            f"{frames} holds frames made with {earlier}, now asked for {preparation}; use the "
            "same flags, or another --frames folder"
        )


def start_adding_flow(
    frames: Path, folders: list[str], names: FrameNames, flow: str, bound: float, quality: int
) -> Preparation:
    """Records which flow is being added to frames that are there.

    Raises DataError if there is flow already that was made in another, or an unrecorded, way.
    """
    known = read_preparation(frames) or Preparation(width=None, height=None, flow="none")
    preparation = replace(known, flow=flow, bound=bound, quality=quality)
    if known.has_flow:
        start_preparation(frames, preparation)
        return preparation
    for folder in folders:
        if any(count_images(frames / folder, names, "flow")):
            raise DataError(
                f"{frames / folder} holds flow images, and {RECORD_FILE} does not say how they "
                "were made; keep them, or remove the flow_* files of all folders to make it anew"
            )
    preparation.write(frames)
    return preparation


def is_finished(folder: Path, preparation: Preparation, names: FrameNames = USUAL_NAMES) -> bool:
    """Whether a frame folder is whole: n frames and, with flow, n - 1 images of x and of y."""
    frames = count_images(folder, names, "rgb")[0]
    if not preparation.has_flow:
        return frames > 0
    return frames > 1 and count_images(folder, names, "flow") == [frames - 1, frames - 1]
