"""Official HMDB51 or UCF101 split files + extracted frame folders -> this project's lists.

    python scripts/data/make_lists.py hmdb51 testTrainMulti_7030_splits --frames DIR
    python scripts/data/make_lists.py ucf101 ucfTrainTestlist --frames DIR

Writes train and test lists of every split and both modalities, with counts taken from disk, and
classes.txt; prints what is missing and, for HMDB51, whether each list is the published one.
A video without frames is left out and the exit code is 1.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

from tabulate import tabulate

from datasets.files import DataError, check_name, check_writable, read_lines, write_lines
from datasets.prepare.jobs import write_list
from datasets.records import VideoRecord
from datasets.sources.folders import MODALITIES, FrameNames, count_images
from datasets.specs import compare_with_published, find_spec
from engine.cli import data_places, new_parser
from engine.cli.flag_types import path

HMDB51_SUBSETS = {"0": None, "1": "train", "2": "val"}
Splits = dict[tuple[int, str], list[tuple[str, str]]]  # (split, subset) -> (video, class)


def read_hmdb51(folder: Path) -> tuple[Splits, list[str]]:
    """`<class>_test_split<k>.txt`, lines `video.avi 0|1|2` -> splits and class names."""
    splits: Splits = defaultdict(list)
    classes = set()
    for file in sorted(folder.glob("*_test_split*.txt")):
        match = re.fullmatch(r"(.+)_test_split(\d{1,9})\.txt", file.name)
        if match is None:
            continue
        class_name, split = match[1], int(match[2])
        classes.add(check_name(class_name, f"{file}: the class"))
        for where, line in read_lines(file):
            video, _, mark = line.rpartition(" ")
            if mark not in HMDB51_SUBSETS or not video:
                raise DataError(f"{where}: expected 'video.avi 0|1|2', got '{line}'")
            if subset := HMDB51_SUBSETS[mark]:
                splits[split, subset].append((_stem(where, video.strip()), class_name))
    if not splits:
        raise DataError(f"no files <class>_test_split<k>.txt in {folder}")
    return splits, sorted(classes)


def read_ucf101(folder: Path) -> tuple[Splits, list[str]]:
    """`classInd.txt`, `trainlist0<k>.txt`, `testlist0<k>.txt` -> splits and class names."""
    names = {}
    for where, line in read_lines(folder / "classInd.txt"):
        index, _, name = line.partition(" ")
        if not re.fullmatch(r"\d{1,9}", index) or not name:
            raise DataError(f"{where}: expected 'index class'")
        names[int(index)] = check_name(name.strip(), f"{where}: the class")
    if sorted(names) != list(range(1, len(names) + 1)):
        raise DataError(f"{folder / 'classInd.txt'}: the indices must run from 1 to {len(names)}")
    splits: Splits = {}
    for name, subset in (("trainlist", "train"), ("testlist", "val")):
        for file in sorted(folder.glob(f"{name}0*.txt")):
            number = file.stem.removeprefix(name)
            if not re.fullmatch(r"\d{1,9}", number):
                continue
            split = int(number)
            splits[split, subset] = [_ucf101_video(*line, names) for line in read_lines(file)]
    if not splits:
        raise DataError(f"no files trainlist0<k>.txt and testlist0<k>.txt in {folder}")
    return splits, [names[index] for index in sorted(names)]


def _ucf101_video(where: str, line: str, names: dict[int, str]) -> tuple[str, str]:
    """`Class/video.avi` or, in the training lists, `Class/video.avi index`."""
    match = re.fullmatch(r"([^/]+)/(.+?\.\w+)(?:\s+(\d{1,9}))?", line)
    if match is None or match[1] not in names.values():
        raise DataError(f"{where}: expected 'Class/video.avi [index]', got '{line}'")
    if match[3] and names.get(int(match[3])) != match[1]:
        raise DataError(f"{where}: index {match[3]} is not the class {match[1]}")
    return _stem(where, match[2]), match[1]


def _stem(where: str, video: str) -> str:
    """A video's file name without its ending: the name of its frame folder."""
    return check_name(Path(check_name(video, f"{where}: the video")).stem, f"{where}: the video")


def find_folder(frames: Path, video: str, class_name: str) -> str | None:
    """The video's folder below `frames`: directly, or in its class's folder."""
    folders = (video, f"{class_name}/{video}")
    return next((folder for folder in folders if (frames / folder).is_dir()), None)


def count_video(frames: Path, folder: str | None, names: FrameNames) -> dict[str, int]:
    """Images of each modality; 0 where there are none or x and y differ."""
    counts = {
        m: set(count_images(frames / folder, names, m)) if folder else {0} for m in MODALITIES
    }
    return {modality: found.pop() if len(found) == 1 else 0 for modality, found in counts.items()}


READERS = {"hmdb51": read_hmdb51, "ucf101": read_ucf101}


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("dataset", choices=READERS, help="the dataset whose official files they are")
    add("splits", type=path, help="folder of the official split files")
    add("--frames", type=path, help="its frame folders (datasets/<dataset>_frames)")
    add("--settings", type=path, help="folder to write the lists in (datasets/settings)")
    args = parser.parse_args(argv)
    # which videos
    frames, settings = data_places(args)
    if not frames.is_dir():
        raise DataError(f"no frames: there is no folder {frames}; give --frames")
    splits, classes = READERS[args.dataset](args.splits)
    check_writable(settings / args.dataset)
    spec = find_spec(args.dataset)
    videos = sorted({video for listed in splits.values() for video in listed})
    folders = {video: find_folder(frames, *video) for video in videos}
    counts = {video: count_video(frames, folders[video], spec.names) for video in videos}
    # lists
    for (split, subset), listed in sorted(splits.items()):
        for modality in MODALITIES:
            file = settings / args.dataset / f"{subset}_{modality}_split{split}.txt"
            records = [
                VideoRecord(folders[v], counts[v][modality], classes.index(v[1]), file.name)
                for v in listed
                if counts[v][modality]
            ]
            if records:
                write_list(file, [(r.folder, r.count, r.label) for r in records])
            print(f"{file.name}: {len(records)} of {len(listed)} videos")
            compared = compare_with_published(spec, split, subset, records)
            if compared:
                print(f"  {compared[1]}")
    write_lines(settings / args.dataset / "classes.txt", classes)
    print(f"{len(classes)} classes; lists in {settings / args.dataset}")
    return report_missing(videos, folders, counts)


def report_missing(videos: list, folders: dict, counts: dict) -> int:
    """Prints a table of what each incomplete video lacks; returns the exit code."""
    missing = []
    for video in videos:
        lacking = [f"no {modality}" for modality, count in counts[video].items() if not count]
        if lacking:
            what = " and ".join(lacking) if folders[video] else "no frame folder"
            missing.append((video[1], video[0], what))
    if not missing:
        return 0
    print(f"\nmissing: {len(missing)} of {len(videos)} videos")
    print(tabulate(missing, tablefmt="plain", disable_numparse=True))
    return 1


if __name__ == "__main__":
    run(main)
