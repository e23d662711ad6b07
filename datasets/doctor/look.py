"""One video seen by a worker process: its images' headers, their content, its flow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.doctor import flow
from datasets.doctor.duplicates import FRAMES, hash_frames, spread
from datasets.doctor.findings import Finding, Mender
from datasets.doctor.folders import Folder
from datasets.doctor.images import read_header, read_strictly
from datasets.lists import DataError
from datasets.prepare.extract import Preparation
from datasets.sources.frames import FrameNames, read_image

USUAL_BOUND = 20.0  # the reference's, where none is recorded
PAIRS = 6  # frame pairs to compute flow of


@dataclass(frozen=True)
class Job:
    """A video to look at; `deep`: at each of its images, not at a few."""

    video: str
    folder: Folder
    modalities: tuple[str, ...]
    names: FrameNames
    preparation: Preparation | None
    mender: Mender
    deep: bool


@dataclass(frozen=True)
class Look:
    """What was seen of a video.

    Attributes:
        findings: its faults.
        sizes: modality -> the sizes (width, height) of its images, each once.
        qualities: modality -> their lowest JPEG quality.
        hashes: perceptual ones of some frames, uint64 (up to FRAMES,).
    """

    video: str
    findings: list[Finding]
    sizes: dict[str, list[tuple[int, int]]]
    qualities: dict[str, int]
    hashes: np.ndarray


def look_at(job: Job) -> Look:
    """Reads some or all images of a video; a fault is a finding, never an exception."""
    return _Observer(job).look()


def read_grey(root: Path, names: FrameNames, video: str, number: int) -> np.ndarray:
    """An RGB frame in grey, uint8 (H, W)."""
    paths = names.find(root / video, "rgb", number)
    if not paths:
        raise DataError(f"'{video}' lacks frame {number}")
    return read_image(paths[0], cv2.IMREAD_GRAYSCALE)


class _Observer:
    def __init__(self, job: Job):
        self.job = job
        self.findings: list[Finding] = []
        self.sizes: dict[str, list[tuple[int, int]]] = {}
        self.qualities: dict[str, int] = {}

    def look(self) -> Look:
        job = self.job
        hashes = np.empty(0, np.uint64)
        if "rgb" in job.modalities and job.folder.rgb:
            chosen = spread(job.folder.rgb, FRAMES)
            kept = [image for number, (image,) in self._images("rgb", chosen) if number in chosen]
            hashes = hash_frames(kept) if kept else hashes
        numbers = job.folder.of("flow")
        if "flow" in job.modalities and numbers:
            seen = list(self._images("flow", spread(numbers, FRAMES)))
            ranges = [flow.image_range(x, y) for _, (x, y) in seen if x.shape == y.shape]
            if len(ranges) < len(seen):
                self._note("error", "x-y-size", "x and y flow images differ in size")
                self.sizes.pop("flow")
            elif ranges:
                self._judge_flow(flow.FlowRange.of(ranges), numbers)
        return Look(job.video, self.findings, self.sizes, self.qualities, hashes)

    def _images(self, modality: str, few: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """(number, grey images) of the steps that can be read; books sizes and qualities."""
        job = self.job
        sizes: dict[tuple[int, int], None] = {}
        qualities = []
        for number in job.folder.of(modality) if job.deep else few:
            images = []
            for path in job.names.find(job.mender.frames / job.video, modality, number):
                try:
                    header = read_header(path)
                    image, damaged = read_strictly(path)
                except DataError as error:
                    self._note("error", "unreadable", str(error))
                    continue
                if damaged:
                    self._note("warning", "damaged", f"{path} has damaged data inside")
                sizes[header.size] = None
                qualities += [header.quality] if header.quality else []
                images.append(image)
            if len(images) == len(job.names.patterns(modality)):
                yield number, images
        self.sizes[modality] = list(sizes)
        if qualities:
            self.qualities[modality] = min(qualities)

    def _judge_flow(self, images: flow.FlowRange, numbers: Sequence[int]) -> None:
        job = self.job
        if 0 in job.folder.rgb:
            return  # which frames the flow is between is anyone's guess
        bound, engine = USUAL_BOUND, ""
        if job.preparation:
            bound, engine = job.preparation.bound, job.preparation.flow
        witness = None
        if images.is_suspect or job.deep:
            witness = flow.compare(list(self._witnesses(numbers)), engine)
        for severity, kind, message in flow.problems(images, witness, bound):
            self._note(severity, kind, message)

    def _witnesses(self, numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, ...]]:
        """Grey (frame, next frame, x, y) of some steps that have all four."""
        job, root = self.job, self.job.mender.frames
        frames = set(job.folder.rgb)
        steps = [number for number in numbers if {number, number + 1} <= frames]
        for number in spread(steps, PAIRS) if steps else ():
            try:
                pair = [read_grey(root, job.names, job.video, n) for n in (number, number + 1)]
                paths = job.names.find(root / job.video, "flow", number)
                yield (*pair, *(read_image(path, cv2.IMREAD_GRAYSCALE) for path in paths))
            except DataError:
                continue  # is a finding already

    def _note(self, severity: str, kind: str, message: str) -> None:
        video = self.job.video
        text = (
            message if str(self.job.mender.frames / video) in message else f"'{video}': {message}"
        )
        mend = self.job.mender.extract_again(video)
        self.findings.append(Finding(severity, kind, video, text, mend))
