"""Many videos -> frame folders, in a process pool, and the lists of what became of them."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
from tqdm import tqdm

from datasets.flow.engines import flow_spec
from datasets.lists import (
    DataError,
    read_class_names,
    read_list,
    write_lines,
    write_list,
)
from datasets.prepare.collect import Shard, Video
from datasets.prepare.extract import NAMES, Preparation, add_flow, extract, is_finished
from datasets.sources.frames import FrameNames, count_images
from datasets.videos import read_frames

Job = tuple[Callable[..., None], tuple]  # a function that raises DataError, and its arguments


def prepare_video(
    source: Path, frames: Path, folder: str, preparation: Preparation, device: str
) -> None:
    """Extracts one video unless it is finished."""
    if not is_finished(frames / folder, preparation):
        pictures = read_frames(source, (preparation.width, preparation.height))
        extract(pictures, frames, folder, preparation, device)


def prepare_flow(
    frames: Path, folder: str, preparation: Preparation, names: FrameNames, device: str
) -> None:
    """Adds flow to one frame folder unless it is there."""
    if not is_finished(frames / folder, preparation, names):
        add_flow(frames, folder, preparation, names, device)


def run_jobs(jobs: dict[str, Job], workers: int, flow: str) -> dict[str, str]:
    """Does the jobs in a process pool; returns name -> reason of those that failed.

    Engines that use PyTorch get fresh processes, because a forked one cannot use the GPU.
    """
    fresh = flow != "none" and flow_spec(flow).uses_device
    context = multiprocessing.get_context("spawn" if fresh else None)
    failures = {}
    with ProcessPoolExecutor(workers, context, _one_thread, (fresh,)) as pool:
        futures = {pool.submit(_reason, *job): name for name, job in jobs.items()}
        bar = tqdm(
            as_completed(futures),
            "videos",
            len(futures),
            unit="video",
            dynamic_ncols=True,
            disable=None,
        )
        try:
            for future in bar:
                reason = future.result()
                if reason is not None:
                    failures[futures[future]] = reason
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def _reason(function: Callable[..., None], arguments: tuple) -> str | None:
    try:
        function(*arguments)
    except DataError as error:
        return str(error)
    return None


def _one_thread(with_torch: bool) -> None:
    """Processes are the parallelism."""
    cv2.setNumThreads(1)
    if with_torch:
        import torch

        torch.set_num_threads(1)


def prepare_all(
    root: Path,
    videos: list[Video],
    frames: Path,
    preparation: Preparation,
    workers: int,
    device: str = "cpu",
) -> dict[str, str]:
    """Extracts all videos; returns path -> reason of those that failed."""
    jobs = {
        v.path: (prepare_video, (root / v.path, frames, v.folder, preparation, device))
        for v in videos
    }
    return run_jobs(jobs, workers, preparation.flow)


def add_flow_to_all(
    frames: Path,
    folders: list[str],
    preparation: Preparation,
    names: FrameNames,
    workers: int,
    device: str = "cpu",
) -> dict[str, str]:
    """Adds flow to all frame folders; returns folder -> reason of those that failed."""
    jobs = {
        folder: (prepare_flow, (frames, folder, preparation, names, device)) for folder in folders
    }
    return run_jobs(jobs, workers, preparation.flow)


def find_frame_folders(frames: Path, names: FrameNames = NAMES) -> list[str]:
    """The folders below `frames` that hold RGB frames, sorted."""
    firsts = {names.rgb.format(1) + suffix for suffix in names.rgb_suffixes}
    found = []
    for folder, below, files in os.walk(frames):
        below[:] = [name for name in below if not name.startswith(".")]
        if not firsts.isdisjoint(files):
            found.append(Path(folder).relative_to(frames).as_posix())
    if not found:
        raise DataError(f"no frame folders in {frames}; give --frames, or VIDEOS to extract")
    return sorted(found)


def write_lists(
    settings: Path,
    split: int,
    videos: list[Video],
    parts: dict[str, str | None],
    class_names: list[str],
    frames: Path,
    preparation: Preparation,
) -> None:
    """Writes the lists of one split, counts taken from disk, and classes.txt."""
    modalities = ("rgb", "flow") if preparation.has_flow else ("rgb",)
    for modality in modalities:
        for part in ("train", "val"):
            rows = [
                (
                    video.folder,
                    count_images(frames / video.folder, NAMES, modality)[0],
                    class_names.index(video.class_name),
                )
                for video in videos
                if parts[video.path] == part
            ]
            if not rows:
                raise DataError(f"no usable video is left for the {part} list")
            write_list(settings / f"{part}_{modality}_split{split}.txt", rows)
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


def merge_class_names(path: Path, videos: list[Video]) -> list[str]:
    """The class names in alphabetical order, or in the order that an earlier split gave them."""
    names = sorted({video.class_name for video in videos})
    earlier = read_class_names(path)
    if earlier is None:
        return names
    unknown = sorted(set(names) - set(earlier))
    if unknown:
        raise DataError(
            f"{path} lacks the classes {', '.join(unknown)}; remove it if the other splits' "
            "lists may become invalid, or use another --dataset name"
        )
    return earlier


def my_share(videos: list[Video], shard: Shard) -> list[Video]:
    """A shard's videos; which ones follows from their paths, not from a csv's order."""
    return shard.of(sorted(videos, key=lambda video: video.path))
