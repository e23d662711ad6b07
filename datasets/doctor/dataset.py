"""What is checked: a dataset's lists, and what lies in the frame folders that they name."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from datasets.doctor.findings import Finding, Fixes
from datasets.files import DataError, normal_name, read_lines
from datasets.lists import LIST_NAME, lists_there, parse_line
from datasets.records import MOST_LIST, VideoRecord
from datasets.sources.folders import MODALITIES, Folder, list_folder
from datasets.specs import DatasetSpec, open_dataset, unnamed_classes

LISTERS = 8  # threads: network disks take their time to answer


@dataclass(frozen=True)
class VideoList:
    """One list: the videos of a subset of a split, in one modality; `bad`: what cannot be read."""

    path: Path
    subset: str
    modality: str
    split: int
    records: list[VideoRecord]
    bad: list[Finding]

    @property
    def videos(self) -> set[str]:
        """All that it names, also in bad lines."""
        return {record.folder for record in self.records} | {entry.video for entry in self.bad}


@dataclass(frozen=True)
class CheckedDataset:
    """A dataset to be checked.

    Attributes:
        spec: its row.
        frames: folder of the frame folders.
        class_names: one for each label.
        lists: those that are checked.
        folders: what lies in each listed frame folder, None if it is missing.
        modalities: those that are checked.
        fixes: spells the commands that fix it.
    """

    spec: DatasetSpec
    frames: Path
    class_names: list[str]
    lists: list[VideoList]
    folders: dict[str, Folder | None]
    modalities: tuple[str, ...]
    fixes: Fixes


def open_checked(
    dataset: str,
    settings: Path,
    frames: Path,
    split: int | None = None,
    modalities: tuple[str, ...] = MODALITIES,
) -> CheckedDataset:
    """Reads the lists of a split (None: of all) and lists their frame folders.

    Raises DataError if there are no lists or no frames to look at.
    """
    spec, class_names = open_dataset(dataset, settings, frames)
    lists = read_lists(settings / dataset, split, modalities)
    records = [record for entry in lists for record in entry.records]
    if class_names is None:
        class_names = unnamed_classes(1 + max((record.label for record in records), default=0))
    videos = list(dict.fromkeys(record.folder for record in records))
    with ThreadPoolExecutor(LISTERS) as pool:
        listed = pool.map(lambda video: list_folder(frames / video, spec.names), videos)
        folders = dict(zip(videos, listed, strict=True))
    fixes = Fixes(dataset, settings, frames)
    return CheckedDataset(spec, frames, class_names, lists, folders, modalities, fixes)


def read_lists(folder: Path, split: int | None, modalities: Sequence[str]) -> list[VideoList]:
    """The lists of a split (None: of all); raises DataError if there is none."""
    lists = []
    for path in sorted(folder.iterdir()):
        match = LIST_NAME.fullmatch(path.name)
        if match is None or match[2] not in modalities or split not in (None, int(match[3])):
            continue
        lists.append(VideoList(path, match[1], match[2], int(match[3]), *_read(path)))
    if not lists:
        wanted = "*" if split is None else split
        raise DataError(
            f"no list {folder}/{{train,val}}_{{{','.join(modalities)}}}_split{wanted}.txt "
            f"({lists_there(folder)}); make it with "
            " scripts/data/make_lists.py or prepare_videos.py"
        )
    return lists


def _read(path: Path) -> tuple[list[VideoRecord], list[Finding]]:
    records, findings = [], []
    try:
        lines = read_lines(path, MOST_LIST, "list")
    except DataError as error:
        return [], [Finding("error", "no-list", "", str(error), "write the list again")]
    for where, line in lines:
        try:
            records.append(parse_line(line, where))
        except DataError as error:
            video = normal_name(line.rsplit(maxsplit=2)[0])
            fix = f"correct line {where.rpartition(':')[2]}"
            findings.append(Finding("error", "bad-line", video, str(error), fix))
    if not records:
        findings.append(Finding("error", "no-videos", "", f"the list {path} has no videos"))
    return records, findings
