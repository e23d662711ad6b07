"""Many videos -> frame folders and flow, in a process pool, and their lists."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from datasets.files import write_lines
from datasets.flow.engines import flow_spec
from datasets.lists import DataError, read_list
from datasets.preparation import Preparation, is_finished, start_adding_flow, start_preparation
from datasets.prepare.collect import Shard, Video
from datasets.prepare.extract import add_flow, clean_up, extract
from datasets.sources.folders import USUAL_NAMES, FrameNames, count_images, find_frame_folders
from datasets.sources.videos import read_frames


@dataclass(frozen=True)
class PreparationResult:
    """What became of a dataset's videos or frame folders.

    Attributes:
        preparation: the record of how they were made.
        total: how many there are.
        done: how many of a shard's, or of all, were done.
        failures: name -> reason of those that failed.
    """

    preparation: Preparation
    total: int
    done: int
    failures: dict[str, str]


@dataclass(frozen=True)
class Workers:
    """Who does the work: processes, the device that computes flow, one of several machines."""

    processes: int = 1
    device: str = "cpu"
    shard: Shard | None = None


def prepare_videos(
    root: Path, videos: list[Video], frames: Path, preparation: Preparation, workers: Workers
) -> PreparationResult:
    """Extracts all videos below `root`, or a shard's, to the folder `frames`."""
    start_preparation(frames, preparation)
    jobs = {
        v.path: partial(_extract, root / v.path, frames, v.folder, preparation, workers.device)
        for v in sorted(videos, key=lambda video: video.path)
    }
    return _run(jobs, frames, preparation, workers)


def add_flow_to_frames(
    frames: Path, names: FrameNames, flow: str, bound: float, quality: int, workers: Workers
) -> PreparationResult:
    """Adds flow to all frame folders below `frames`, or to a shard's.

    Raises DataError if there are none, or they have flow that was made in another way.
    """
    folders = find_frame_folders(frames, names, ("rgb",))
    if not folders:
        raise DataError(f"no frame folders in {frames}; give --frames, or VIDEOS to extract")
    preparation = start_adding_flow(frames, folders, names, flow, bound, quality)
    jobs = {f: partial(_add, frames, f, preparation, names, workers.device) for f in folders}
    return _run(jobs, frames, preparation, workers)


def _extract(
    source: Path, frames: Path, folder: str, preparation: Preparation, device: str
) -> None:
    if not is_finished(frames / folder, preparation):
        pictures = read_frames(source, (preparation.width, preparation.height))
        extract(pictures, frames, folder, preparation, device)


def _add(
    frames: Path, folder: str, preparation: Preparation, names: FrameNames, device: str
) -> None:
    if not is_finished(frames / folder, preparation, names):
        add_flow(frames, folder, preparation, names, device)


def _run(
    jobs: dict[str, Callable[[], None]], frames: Path, preparation: Preparation, workers: Workers
) -> PreparationResult:
    """Calls the jobs in a process pool; one that raises DataError has failed.

    Engines that use PyTorch get fresh processes, because a forked one cannot use the GPU.
    """
    mine = workers.shard.of(list(jobs)) if workers.shard else list(jobs)
    fresh = preparation.has_flow and flow_spec(preparation.flow).uses_device
    context = multiprocessing.get_context("spawn" if fresh else None)
    with ProcessPoolExecutor(workers.processes, context, _one_thread, (fresh,)) as pool:
        results = pool.map(_failure, [jobs[name] for name in mine])
        bar = tqdm(results, "videos", len(mine), unit="video", dynamic_ncols=True, disable=None)
        failures = {name: reason for name, reason in zip(mine, bar, strict=True) if reason}
    if workers.shard is None:
        clean_up(frames)
    return PreparationResult(preparation, len(jobs), len(mine) - len(failures), failures)


def _failure(job: Callable[[], None]) -> str:
    """Why a job failed, "" if it did not."""
    try:
        job()
    except DataError as error:
        return str(error)
    return ""


def _one_thread(with_torch: bool) -> None:
    """Processes are the parallelism."""
    cv2.setNumThreads(1)
    if with_torch:
        import torch

        torch.set_num_threads(1)


def write_list(path: Path, rows: Sequence[tuple[str, int, int]]) -> None:
    """Writes (folder, count, label) rows as a list, whole or not at all."""
    write_lines(path, [f"{folder} {count} {label}" for folder, count, label in rows])


def write_lists(
    settings: Path,
    split: int,
    videos: list[Video],
    subsets: dict[str, str | None],
    class_names: Sequence[str],
    frames: Path,
    preparation: Preparation,
) -> None:
    """Writes the lists of one split, counts taken from disk, and classes.txt."""
    modalities = ("rgb", "flow") if preparation.has_flow else ("rgb",)
    for modality in modalities:
        for subset in ("train", "val"):
            rows = [
                (
                    video.folder,
                    count_images(frames / video.folder, USUAL_NAMES, modality)[0],
                    class_names.index(video.class_name),
                )
                for video in videos
                if subsets[video.path] == subset
            ]
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
    for path in sorted(settings.glob("*_rgb_split*.txt")):
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
