"""Previews of videos: some frames of each side by side in one WebP, as a data URI."""

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets import DataError, create_dataset
from datasets.files import check_name
from datasets.records import VideoRecord
from datasets.sampling import spread
from datasets.sources.choose import FOLDERS, Split
from datasets.sources.reader import Reader, read_header
from engine.config import DataConfig, ReportConfig
from engine.data import data_folder, lists_folder
from engine.plots import flow_colours
from engine.reporting.contents import Tested
from engine.testing.score_files import ScoreFile
from models import get_arch
from models.archs import ArchError

FRAMES = 12  # of a preview that plays
HEIGHT, WIDEST = 120, 214  # pixels
QUALITY = 55  # of WebP
FULL_FLOW = 32  # steps of a flow image that are shown in full colour
PLAYING = 0.75  # share of the room that previews with several frames may take


@dataclass(frozen=True)
class Previews:
    """Pictures of videos.

    Attributes:
        images: video -> data URI of its frames side by side, and how many there are.
        size: (width, height) of a frame.
        note: why there are fewer pictures than videos, or "".
    """

    images: Mapping[str, tuple[str, int]]
    size: tuple[int, int]
    note: str = ""


def open_test_videos(config: ReportConfig, test: Tested) -> tuple[Split, dict[str, VideoRecord]]:
    """The list that a test is on, RGB if there is any, and its records by folder.

    Raises DataError, with the reason, if it is not known or not there.
    """
    record = test.record
    dataset = config.dataset or record.dataset
    if not dataset:
        raise DataError(
            f"no JSON beside {test.scores.path} says where its videos are; give --dataset"
        )
    check_name(dataset, f"{test.scores.path}: the dataset")
    settings, frames = (
        asked or (Path(said) if said and dataset == record.dataset else None)
        for asked, said in ((config.settings, record.settings), (config.frames, record.frames))
    )
    data = DataConfig(dataset, record.split or 1, settings, frames)
    size, reasons = _input_size(test.scores), []
    for modality in ("rgb", "flow"):
        try:
            split = create_dataset(
                data.dataset,
                data.split,
                modality,
                lists_folder(data),
                data_folder(data),
                ("val",),
                size,
            )
            return split, {own.folder: own for own in split.val}
        except (DataError, OSError) as error:
            reasons.append(error)
    raise DataError(str(reasons[0]))


def _input_size(file: ScoreFile) -> tuple[int, int] | None:
    """(width, height) that the tested network reads, which a pack may be made for."""
    try:
        return get_arch(str(file.metadata.get("arch", "")).split("+")[0]).input.resize
    except ArchError:
        return None


def make_previews(
    config: ReportConfig, test: Tested, wanted: Sequence[str], room: float
) -> Previews:
    """Previews of a test's videos, those first that are wanted first, as far as the room goes.

    Args:
        room: characters that all of them together may take.
    """
    try:
        split, records = open_test_videos(config, test)
    except DataError as error:
        return Previews({}, (0, 0), f"no pictures: {error}")
    size = _preview_size(split)
    reader = split.source.reader(size)
    images, errors, left = {}, [], room
    bar = tqdm(wanted, "pictures", unit="video", dynamic_ncols=True, disable=None)
    for video in bar:
        if video not in records:
            errors.append(f"'{video}' is not in the list")
            continue
        frames = FRAMES if left > (1 - PLAYING) * room else 1
        try:
            image = _film(reader, records[video], frames)
        except DataError as error:
            errors.append(str(error))
            continue
        if len(image) > left:
            break
        left -= len(image)
        images[video] = image, min(frames, records[video].count)
    missing = len(wanted) - len(images) - len(errors)
    notes = [f"{len(errors)} videos have no picture: {errors[0]}"] if errors else []
    notes += [f"{missing} videos have no picture: the file is full (--max-mb)"] if missing else []
    return Previews(images, size, "; ".join(notes))


def _preview_size(split: Split) -> tuple[int, int]:
    """HEIGHT, and the width that keeps the first image's aspect where its file can be looked at."""
    width, height = 4, 3
    source, first = split.source, split.val[0]
    if source.kind == FOLDERS:
        for path in source.names.find(source.root / first.folder, source.modality, 1)[:1]:
            with suppress(DataError):  # whoever reads the video says so
                width, height = read_header(path).size
    return int(np.clip(round(HEIGHT * width / height), HEIGHT // 2, WIDEST)), HEIGHT


def _film(reader: Reader, record: VideoRecord, frames: int) -> str:
    """A data URI of some of a video's frames, side by side; of one, the middle frame."""
    numbers = range(1, record.count + 1)
    chosen = spread(numbers, frames) if frames > 1 else [record.count // 2 + 1]
    images = reader.read(record, np.array(chosen))
    if images.shape[-1] == 2:
        images = flow_colours(np.stack(images), FULL_FLOW)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), axis=1)).save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
