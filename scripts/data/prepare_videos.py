"""Your own videos -> frames, optical flow, lists and class names.

    python scripts/data/prepare_videos.py VIDEOS --dataset NAME --train 'set1_*' --val 'set2_*'

VIDEOS holds a folder for each class. Or `--csv FILE` lists the videos: columns `video` (path
below VIDEOS), `class` (default: the folder that the video lies in) and `part` (train, val or
empty; with it the csv is the split). What is finished is skipped when run again, so a second
split of the same videos costs nothing: give it another --split number.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets.extraction import (  # noqa: E402
    NAMES,
    Preparation,
    clean_up,
    describe,
    extract,
    is_finished,
    start_preparation,
)
from datasets.flow import FLOW_METHODS  # noqa: E402
from datasets.frames import count_images  # noqa: E402
from datasets.settings_file import DataError, read_class_names, write_lines, write_list  # noqa: E402
from datasets.splitting import split_at_random, split_by_pattern  # noqa: E402
from datasets.videos import VIDEO_SUFFIXES, read_frames  # noqa: E402
from engine.cli import UsageError, positive, resolve, run  # noqa: E402


@dataclass(frozen=True)
class Video:
    """A video to prepare: its path below the root, its class, and the part a csv gives it."""

    path: str
    class_name: str
    part: str | None = None

    @property
    def folder(self) -> str:
        """Where its frames lie below the dataset's frames."""
        return f"{self.class_name}/{Path(self.path).stem}"


def find_videos(root: Path) -> list[Video]:
    """The videos in the class folders of `root`."""
    if not root.is_dir():
        raise DataError(f"no such folder: {root}")
    videos = [
        Video(str(path.relative_to(root)), path.parent.name)
        for path in sorted(root.glob("*/*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
    if not videos:
        raise DataError(f"no videos in {root}/<class>/; known endings: {_suffixes()}")
    return videos


def _suffixes() -> str:
    return " ".join(sorted(VIDEO_SUFFIXES))


def read_csv(path: Path) -> list[Video]:
    """The videos of a csv with a header line: video[, class][, part]."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "video" not in (rows.fieldnames or []):
                raise DataError(f"{path}: the first line must name a column 'video'")
            return [_csv_video(row, f"{path}:{rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _csv_video(row: dict, where: str) -> Video:
    video = (row.get("video") or "").strip()
    class_name = (row.get("class") or "").strip() or Path(video).parent.name
    part = (row.get("part") or "").strip() or None
    if not video or not class_name:
        raise DataError(f"{where}: a video and its class are needed")
    if part not in (None, "train", "val"):
        raise DataError(f"{where}: part must be train, val or empty, not '{part}'")
    return Video(video, class_name, part)


def check_videos(root: Path, videos: list[Video]) -> None:
    """Raises DataError for a video that is not there, or two that would share a frame folder."""
    for video in videos:
        if not (root / video.path).is_file():
            raise DataError(f"no video {root / video.path}")
    for folder, number in Counter(video.folder for video in videos).items():
        if number > 1:
            same = ", ".join(video.path for video in videos if video.folder == folder)
            raise DataError(f"these would share the frame folder '{folder}', rename one: {same}")


def choose_split(args: argparse.Namespace, videos: list[Video]) -> dict[str, str | None]:
    """Video path -> part, as the arguments say."""
    paths = [video.path for video in videos]
    if any(video.part for video in videos):
        return {video.path: video.part for video in videos}
    if args.train or args.val:
        if not (args.train and args.val):
            raise UsageError("--train and --val go together")
        return split_by_pattern(paths, args.train, args.val)
    return split_at_random(paths, args.val_share, args.group, args.seed)


def warn_of_missing_classes(
    videos: list[Video], parts: dict[str, str | None], report: Callable[[str], None]
) -> None:
    """A class that only trains or only tests is most often a mistake in the split."""
    for part in ("train", "val"):
        there = {video.class_name for video in videos if parts[video.path] == part}
        missing = sorted({video.class_name for video in videos} - there)
        if missing:
            report(f"warning: no video for {part} of the classes {', '.join(missing)}")


def prepare_video(source: Path, frames: Path, folder: str, preparation: Preparation) -> str | None:
    """Extracts one video unless it is finished; returns None, or why it cannot be."""
    if is_finished(frames / folder, preparation):
        return None
    try:
        pictures = read_frames(source, (preparation.width, preparation.height))
        extract(pictures, frames, folder, preparation)
    except DataError as error:
        return str(error)
    return None


def prepare_all(
    root: Path, videos: list[Video], frames: Path, preparation: Preparation, workers: int
) -> dict[str, str]:
    """Extracts all videos in a process pool; returns path -> reason of those that failed."""
    failures = {}
    with ProcessPoolExecutor(workers) as pool:
        jobs = {
            pool.submit(prepare_video, root / v.path, frames, v.folder, preparation): v
            for v in videos
        }
        try:
            for job in tqdm(
                as_completed(jobs),
                "videos",
                len(jobs),
                unit="video",
                dynamic_ncols=True,
                disable=None,
            ):
                reason = job.result()
                if reason is not None:
                    failures[jobs[job].path] = reason
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failures


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


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of the videos")
    parser.add_argument("--dataset", "-d", required=True, help="name to use it under")
    parser.add_argument("--csv", type=Path, help="lists the videos, instead of class folders")
    parser.add_argument("--frames", type=Path, help="default: datasets/<dataset>_frames")
    parser.add_argument("--settings", type=Path, help="default: datasets/settings")
    parser.add_argument("-j", "--workers", type=positive, default=2, help="(%(default)s)")
    images = parser.add_argument_group("images (recorded in preparation.json)").add_argument
    images("--flow", choices=[*FLOW_METHODS, "none"], default="dis", help="(%(default)s)")
    images("--bound", type=_bound, default=20.0, help="pixels that become 255 (%(default)s)")
    images("--quality", type=_quality, default=95, help="of the JPEGs, 1-100 (%(default)s)")
    images("--width", type=positive, default=340, help="(%(default)s)")
    images("--height", type=positive, default=256, help="(%(default)s)")
    split = parser.add_argument_group("split: by patterns, by the csv, or at random").add_argument
    split("-s", "--split", type=positive, default=1, help="number to store it under (%(default)s)")
    split("--train", metavar="PATTERN", help="shell pattern on the file name")
    split("--val", metavar="PATTERN", help="shell pattern on the file name")
    split("--val-share", type=_part_of_all, default=0.3, help="of the videos (%(default)s)")
    split("--group", metavar="REGEX", default="$^", help="videos that match alike stay together")
    split("--seed", type=int, default=0, help="of the random split (%(default)s)")
    split("--no-lists", action="store_true", help="only extract; make_lists.py writes the lists")
    return parser.parse_args(argv)


def _number(text: str, low: float, high: float) -> float:
    value = float(text)
    if not low < value <= high:
        raise argparse.ArgumentTypeError(f"must be above {low} and at most {high}, not {text}")
    return value


def _bound(text: str) -> float:
    return _number(text, 0, 1000)


def _quality(text: str) -> int:
    return int(_number(text, 0, 100))


def _part_of_all(text: str) -> float:
    return _number(text, 0, 0.95)


def main(argv: list[str] | None = None, report: Callable[[str], None] = print) -> int:
    args = parse_args(argv)
    root = args.videos.expanduser().resolve()
    frames = resolve(args.frames, f"datasets/{args.dataset}_frames")
    settings = resolve(args.settings, "datasets/settings") / args.dataset
    videos = read_csv(args.csv) if args.csv else find_videos(root)
    check_videos(root, videos)
    parts = {} if args.no_lists else choose_split(args, videos)
    preparation = Preparation(args.width, args.height, args.quality, args.flow, args.bound)
    # Labels follow from all videos: they stay when a broken one is mended.
    if not args.no_lists:
        class_names = merge_class_names(settings / "classes.txt", videos)
        warn_of_missing_classes(videos, parts, report)
    start_preparation(frames, preparation)
    failures = prepare_all(root, videos, frames, preparation, args.workers)
    clean_up(frames)
    usable = [video for video in videos if video.path not in failures]
    numbers = Counter(parts.get(video.path) for video in usable)
    done = f"{len(usable)} videos in {frames} ({describe(preparation)})"
    try:
        if args.no_lists:
            report(done)
        else:
            write_lists(settings, args.split, usable, parts, class_names, frames, preparation)
            report(
                f"{done}; split {args.split}: {numbers['train']} for training, "
                f"{numbers['val']} for testing, lists in {settings}"
            )
    finally:
        for path, reason in sorted(failures.items()):
            report(f"left out: {path}: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    run(main)
