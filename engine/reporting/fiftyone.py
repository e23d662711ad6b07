"""Tests as a dataset of FiftyOne's JSON format: a sample a video, a classification a test.

The format is the one that `fiftyone.types.FiftyOneDataset` reads where metadata.json names no
version: `samples.json` holds the samples as `fiftyone.Sample.from_dict` takes them. The kind of
media follows from each file's name, so metadata.json does not state it.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from datasets import DataError
from datasets.files import written_whole
from datasets.records import VideoRecord
from datasets.sources.choose import VIDEOS, Split
from datasets.sources.reader import Reader
from datasets.sources.videos import find_video
from engine import UsageError
from engine.config import ReportConfig
from engine.files import resolve, write_json
from engine.plots import flow_colours
from engine.reporting.contents import ReportContent, Tested, read_contents
from engine.reporting.media import FULL_FLOW, open_test_videos

SIZE = (340, 256)  # of the MP4s
RATE = 25  # frames a second; frame folders do not say theirs


def export_fiftyone(config: ReportConfig, paths: Sequence[Path]) -> tuple[int, Path]:
    """Writes the dataset; returns the number of samples and the folder.

    Raises UsageError for tests of different videos or a folder that is not empty, DataError where
    the videos are not known or cannot be read.
    """
    folder = resolve(config.output, "results/fiftyone")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; give a new folder with --output")
    content = read_contents(config, paths)
    if len(content.sets) > 1:
        first, other = (content.tests[own[0]].scores.path for own in content.sets[:2])
        raise UsageError(f"{first} and {other} test different videos; export them one by one")
    test = content.tests[-1]
    split, records = open_test_videos(config, test)
    reader, samples = split.source.reader(SIZE), []
    bar = tqdm(test.scores.videos, "videos", unit="video", dynamic_ncols=True, disable=None)
    for row, video in enumerate(bar):
        if video not in records:
            raise DataError(f"{test.scores.path}: '{video}' is not in the list of the dataset")
        path = _media(split, reader, records[video], folder)
        samples.append(_sample(content, row, path))
    write_json(folder / "samples.json", {"samples": samples})
    classes = list(test.scores.classes)
    metadata = {"info": {"classes": classes}, "default_classes": classes}
    write_json(folder / "metadata.json", metadata)
    return len(samples), folder


def _sample(content: ReportContent, row: int, path: str) -> dict:
    """One video as `fiftyone.Sample.to_dict` writes it."""
    first = content.tests[0].scores
    sample = {
        "filepath": path,
        "tags": [f"wrong: {test.name}" for test in content.tests if not test.correct[row]],
        "metadata": None,
        "ground_truth": _classification(first.classes[first.labels[row]]),
        "video": first.videos[row],
    }
    for test in content.tests:
        label = int(test.predicted[row])
        sample[_field(test)] = None  # not scored
        if label >= 0:
            confidence, logits = test.probabilities[row, label], test.scores.scores[row]
            answer = _classification(first.classes[label], float(confidence), logits)
            sample[_field(test)] = answer
    return sample


def _field(test: Tested) -> str:
    """A test's name as that of a field: FiftyOne's are words without dots."""
    return re.sub(r"\W+", "_", test.name).strip("_").lower()


def _classification(
    label: str, confidence: float | None = None, logits: np.ndarray | None = None
) -> dict:
    found = {"_cls": "Classification", "tags": [], "label": label}
    if logits is not None:
        found |= {"confidence": confidence, "logits": [float(value) for value in logits]}
    return found


def _media(split: Split, reader: Reader, record: VideoRecord, folder: Path) -> str:
    """A video's file, absolute, or an MP4 that is made of its frames, relative to the folder."""
    if split.source.kind == VIDEOS:
        return str(find_video(split.source.root, record.folder).resolve())
    path = folder / "data" / f"{record.folder}.mp4"
    with written_whole(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for _, images in reader.read_parts(record, np.arange(1, record.count + 1)):
            for image in images:
                rgb = image if image.shape[-1] == 3 else flow_colours(image, FULL_FLOW)
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path.relative_to(folder))
