"""Many videos -> frame folders and flow, in processes, and their lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from datasets.files import DataError, check_writable, write_lines
from datasets.flow.engines import flow_spec
from datasets.lists import SUBSET_NAMES, read_list
from datasets.preparation import CLIP, RECORD_FILE, Preparation, is_finished, read_preparation
from datasets.prepare.collect import Shard, Video, check_video
from datasets.prepare.extract import add_flow, extract
from datasets.prepare.work import path_inside, remove_unfinished
from datasets.sources.facts import OTHER_RATE, VideoFacts, try_measure, usual_fps, usual_size
from datasets.sources.folders import (
    MODALITIES,
    USUAL_NAMES,
    FrameNames,
    count_images,
    find_frame_folders,
)
from datasets.sources.pool import in_processes
from datasets.sources.videos import read_frames

Make = Callable[[Video | str], VideoFacts | None]
MOST_LOST = 0.02  # share of frames that a file may claim too many
RGB_LISTS = "*_rgb_split*.txt"
check_writable_once = lru_cache(maxsize=None)(check_writable)  # in a process


class Prepared(NamedTuple):
    """How many there are, how many of a shard's or of all were done, and name -> why not.

    `facts` are those of the video files that were done, `damaged` what some of them lack.
    """

    total: int
    done: int
    failures: dict[str, str]
    facts: list[VideoFacts]
    damaged: dict[str, str]


@dataclass(frozen=True)
class Workers:
    """Makes the frame folders of a dataset that are not finished.

    Attributes:
        frames: folder of the frame folders.
        preparation: how they are made.
        names: file names of the images.
        processes: that work at once.
        device: where they compute flow.
        shard: which of several machines this is.
        keep_damaged: use a video that cannot be decoded to its end up to there.
    """

    frames: Path
    preparation: Preparation
    names: FrameNames
    processes: int
    device: str
    shard: Shard | None
    keep_damaged: bool = False

    def extract(self, root: Path, video: Video) -> VideoFacts | None:
        """Frames and flow of a video below `root`; raises DataError if `check_video` does.

        A damaged one raises DataError unless `keep_damaged`; then the facts tell of the damage.
        """
        check_video(root, video)
        folder = path_inside(self.frames, video.folder)
        damage = [] if self.keep_damaged else None
        if not is_finished(folder, self.preparation, self.names):
            check_writable_once(self.frames)
            size = (self.preparation.width, self.preparation.height)
            pictures = read_frames(root / video.path, size, self.preparation.resampled, damage)
            extract(pictures, self.frames, video.folder, self.preparation, self.device)
        facts, count = try_measure(root / video.path), count_images(folder, self.names, "rgb")[0]
        if facts is None:
            return None
        claimed = facts.frames
        if self.preparation.resampled:
            claimed *= self.preparation.resampled / facts.fps if facts.fps else 0
        if count < claimed - max(2, MOST_LOST * claimed):
            reason = damage[0] if damage else "the file breaks off"
            note = f"{count} of {claimed:.0f} frames are used: {reason}"
            facts = replace(facts, damage=note)
        return replace(facts, frames=count)

    def add_flow(self, folder: str) -> None:
        if not is_finished(path_inside(self.frames, folder), self.preparation, self.names):
            check_writable_once(self.frames)
            add_flow(self.frames, folder, self.preparation, self.names, self.device)

    def run(self, make: Make, items: Sequence[Video | str]) -> Prepared:
        """Makes the items, or a shard's, in processes; one that raises DataError has failed."""
        mine = self.shard.of(items) if self.shard else items
        torch = self.preparation.has_flow and flow_spec(self.preparation.flow).uses_device
        try:
            made = in_processes(partial(_try, make), mine, self.processes, torch)
        finally:
            if self.shard is None:
                remove_unfinished(self.frames)
        failures = {
            str(item): str(each)
            for item, each in zip(mine, made, strict=True)
            if isinstance(each, DataError)
        }
        facts = {
            str(i): each for i, each in zip(mine, made, strict=True) if isinstance(each, VideoFacts)
        }
        damaged = {name: each.damage for name, each in facts.items() if each.damage}
        done = len(mine) - len(failures)
        return Prepared(len(items), done, failures, [*facts.values()], damaged)


def _try(make: Make, item: Video | str) -> VideoFacts | DataError | None:
    """The facts of a video that was made, or why it was not."""
    try:
        return make(item)
    except DataError as error:
        return error


def record_facts(
    frames: Path, preparation: Preparation, facts: Sequence[VideoFacts]
) -> Preparation:
    """Adds to the record what the videos were; returns it."""
    if not facts:
        return preparation
    wanted, lying = preparation.resampled, preparation.width > preparation.height
    fps = wanted or usual_fps(facts)
    rates = [each.fps for each in facts if each.fps]
    shapes = [each.size for each in facts if each.size[0] != each.size[1]]
    preparation = replace(
        preparation,
        fps=fps,
        decoded=usual_size(facts),
        videos=len(facts),
        other_fps=0 if wanted else sum(abs(rate / fps - 1) > OTHER_RATE for rate in rates),
        changing=0 if wanted else sum(each.changing for each in facts),
        short=sum(0 < each.frames < CLIP for each in facts),
        turned=sum((width > height) != lying for width, height in shapes),
    )
    preparation.write(frames)
    return preparation


def check_origin(frames: Path) -> None:
    """Raises DataError for frame folders of unrecorded origin: a preparation might replace them."""
    if read_preparation(frames) is None and find_frame_folders(frames, USUAL_NAMES):
        raise DataError(
            f"{frames} holds frames, and no {RECORD_FILE} says how they were made; give another "
            "--frames folder, or only add flow to them with --flow-only"
        )


def write_list(path: Path, rows: Sequence[tuple[str, int, int]]) -> None:
    """Writes (folder, count, label) rows as a list, whole or not at all."""
    write_lines(path, [f"{folder} {count} {label}" for folder, count, label in rows])


def write_lists(
    settings: Path, split: int, videos: list[Video], class_names: Sequence[str], frames: Path
) -> None:
    """Writes the lists of one split, counts taken from disk, and classes.txt."""
    for modality in MODALITIES if read_preparation(frames).has_flow else ("rgb",):
        for subset in SUBSET_NAMES:
            rows = []
            for video in (video for video in videos if video.subset == subset):
                count = count_images(frames / video.folder, USUAL_NAMES, modality)[0]
                rows.append((video.folder, count, class_names.index(video.class_name)))
            if not rows:
                raise DataError(f"no usable video is left for the {subset} list")
            write_list(settings / f"{subset}_{modality}_split{split}.txt", rows)
    write_lines(settings / "classes.txt", class_names)


def write_flow_lists(
    settings: Path, frames: Path, preparation: Preparation, names: FrameNames
) -> tuple[list[str], list[str]]:
    """Writes a flow list beside each RGB list; returns their names, and folders left out of them.

    The count is the disk's, the label the RGB list's. A folder whose flow is not finished is
    left out.
    """
    written, left_out = [], []
    for path in sorted(settings.glob(RGB_LISTS)):
        rows = []
        for record in read_list(path):
            if is_finished(frames / record.folder, preparation, names):
                count = count_images(frames / record.folder, names, "flow")[0]
                rows.append((record.folder, count, record.label))
            else:
                left_out.append(record.folder)
        if not rows:
            raise DataError(f"no video of {path} has flow in {frames}; is --frames right?")
        name = path.name.replace("_rgb_", "_flow_")
        write_list(settings / name, rows)
        written.append(name)
    return written, sorted(set(left_out))
