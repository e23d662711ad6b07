"""A video's images: whether they can be read, their size and JPEG quality, their flow."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from datasets.doctor.findings import Finding, Fixes
from datasets.doctor.flow import FlowRange, compare, find_problems
from datasets.files import DataError
from datasets.preparation import Preparation
from datasets.sampling import spread
from datasets.sources.folders import Folder, FrameNames
from datasets.sources.jpeg import JPEG_START, QUALITY_TOLERANCE, Header
from datasets.sources.reader import (
    MAX_RATIO,
    check_image,
    decode_image,
    read_header,
    read_image,
    read_image_file,
)

HASHED_FRAMES = 5
LOWEST_QUALITY = 80
ASPECT_TOLERANCE = 0.02
USUAL_BOUND = 20.0  # the reference's, where none is recorded
COMPARED_PAIRS = 6  # frame pairs whose flow is computed anew


@dataclass
class VideoReport:
    """What was found in a video's images.

    Attributes:
        findings: its faults.
        sizes: modality -> the sizes (width, height) of its images, each once.
        qualities: modality -> their lowest JPEG quality.
        hashes: perceptual ones of some frames, uint64 (up to HASHED_FRAMES,).
    """

    video: str
    findings: list[Finding] = field(default_factory=list)
    sizes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    qualities: dict[str, int] = field(default_factory=dict)
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(frozen=True)
class ImageChecks:
    """Reads some images of a video, or `deep` all; a fault is a finding, never an exception."""

    frames: Path
    names: FrameNames
    modalities: tuple[str, ...]
    preparation: Preparation | None
    fixes: Fixes
    deep: bool

    def __call__(self, item: tuple[str, Folder]) -> VideoReport:
        video, folder = item
        report = VideoReport(video)
        # frames
        if "rgb" in self.modalities and folder.rgb:
            few = spread(folder.rgb, HASHED_FRAMES)
            images = self._read(report, folder, "rgb", few)
            report.hashes = hash_frames(image for number, (image,) in images if number in few)
        # flow
        numbers = folder.of("flow")
        if "flow" in self.modalities and numbers:
            seen = list(self._read(report, folder, "flow", spread(numbers, HASHED_FRAMES)))
            pairs = [(x, y) for _, (x, y) in seen if x.shape == y.shape]
            if len(pairs) < len(seen):
                self._add(report, "error", "x-y-size", "x and y flow images differ in size")
                report.sizes.pop("flow")
            elif pairs and 0 not in folder.rgb:  # else no one knows which frames it is between
                self._check_flow(report, folder, FlowRange.of(pairs))
        return report

    def _read(
        self, report: VideoReport, folder: Folder, modality: str, few: Sequence[int]
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """(number, grey images) of the steps that can be read; records sizes and qualities."""
        headers: list[Header] = []
        planes = len(self.names.patterns(modality))
        for number in folder.of(modality) if self.deep else few:
            images = []
            paths = self.names.find(self.frames / report.video, modality, number)
            if len(paths) < planes:  # though it is in the folder
                message = f"{modality} image {number} is a link that leads to no file"
                self._add(report, "error", "unreadable", message)
            for path in paths:
                try:
                    header, (image, damaged) = read_header(path), read_strictly(path)
                except DataError as error:
                    self._add(report, "error", "unreadable", str(error))
                    continue
                if modality == "flow" and not header.grey:
                    self._add_once(report, "flow-colour", f"{path} has 3 channels: flow is grey")
                if damaged:
                    self._add(report, "warning", "damaged", f"{path} has damaged data inside")
                headers.append(header)
                images.append(image)
            if len(images) == planes:
                yield number, images
        report.sizes[modality] = list(dict.fromkeys(header.size for header in headers))
        if qualities := [header.quality for header in headers if header.quality]:
            report.qualities[modality] = min(qualities)

    def _check_flow(self, report: VideoReport, folder: Folder, stored: FlowRange) -> None:
        bound, engine = USUAL_BOUND, ""
        if self.preparation:
            bound, engine = self.preparation.bound, self.preparation.flow
        compared = stored.is_suspect or self.deep
        comparison = compare(self._pairs(report.video, folder), engine) if compared else None
        for severity, kind, message in find_problems(stored, comparison, bound):
            self._add(report, severity, kind, message)

    def _pairs(self, video: str, folder: Folder) -> Iterator[tuple[np.ndarray, ...]]:
        """Grey (frame, next frame, x, y) of some steps that have all four."""
        frames = set(folder.rgb)
        steps = [n for n in folder.of("flow") if {n, n + 1} <= frames]
        for number in spread(steps, COMPARED_PAIRS) if steps else ():
            try:
                pair = [read_grey(self.frames, self.names, video, n) for n in (number, number + 1)]
                paths = self.names.find(self.frames / video, "flow", number)
                yield (*pair, *(read_image(path, cv2.IMREAD_GRAYSCALE) for path in paths))
            except DataError:
                continue  # is a finding already

    def check_sizes(self, reports: Sequence[VideoReport], modality: str) -> Iterator[Finding]:
        """Videos whose images differ in size from the rest, or within themselves."""
        uniform = {}
        for report in reports:
            video, sizes = report.video, report.sizes.get(modality, [])
            if len(sizes) > 1:
                message = f"'{video}' has {modality} images of several sizes: {_sizes(sizes)}"
                areas = [width * height for width, height in sizes]
                severity = "error" if max(areas) > MAX_RATIO * min(areas) else "warning"
                fix = self.fixes.extract_again(video)
                yield Finding(severity, "sizes-mixed", video, message, fix)
            elif sizes:
                uniform[video] = sizes[0]
        if not uniform:
            return
        most = Counter(uniform.values()).most_common()
        usual, why = most[0][0], f"{most[0][1]} of {len(uniform)} videos have"
        if self.preparation and self.preparation.width:
            usual, why = (self.preparation.width, self.preparation.height), "preparation.json says"
        elif most[0][1] <= len(uniform) / 2:
            message = f"{modality} images come in many sizes: {_sizes([size for size, _ in most])}"
            fix = f"extract all at one size, such as 340x256: {self.fixes.prepare}"
            yield Finding("warning", "sizes-vary", "", message, fix)
            return
        for video, (width, height) in uniform.items():
            if (width, height) != usual:
                stretch = (width / height) / (usual[0] / usual[1])
                kind = "size" if abs(stretch - 1) <= ASPECT_TOLERANCE else "aspect"
                message = (
                    f"'{video}' has {modality} images of {width}x{height}; {why} {_sizes([usual])}"
                )
                yield Finding("warning", kind, video, message, self.fixes.extract_again(video))

    def check_quality(self, reports: Sequence[VideoReport], modality: str) -> Iterator[Finding]:
        """Videos whose lowest JPEG quality is below 80, or other than recorded."""
        # Frames of unrecorded size were there before the preparation, which added the flow.
        known = self.preparation and (modality == "flow" or self.preparation.width)
        for report in reports:
            if modality not in report.qualities:
                continue
            video, quality = report.video, report.qualities[modality]
            message = f"'{video}' has {modality} JPEGs of quality {quality}"
            fix = self.fixes.extract_again(video)
            if quality < LOWEST_QUALITY:
                message += f", below {LOWEST_QUALITY}"
                yield Finding("warning", "quality", video, message, fix)
            elif known and abs(quality - self.preparation.quality) > QUALITY_TOLERANCE:
                message += f", not {self.preparation.quality} as recorded"
                yield Finding("warning", "quality-recorded", video, message, fix)

    def _add_once(self, report: VideoReport, kind: str, message: str) -> None:
        if all(finding.kind != kind for finding in report.findings):
            self._add(report, "error", kind, message)

    def _add(self, report: VideoReport, severity: str, kind: str, message: str) -> None:
        video = report.video
        if str(self.frames / video) not in message:
            message = f"'{video}': {message}"
        fix = self.fixes.extract_again(video)
        report.findings.append(Finding(severity, kind, video, message, fix))


def hash_frames(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Grey frames -> perceptual hashes, uint64 (len,)."""
    engine = cv2.img_hash.PHash.create()
    hashes = [int.from_bytes(engine.compute(frame)[0].tobytes()) for frame in frames]
    return np.array(hashes, np.uint64)


def read_grey(root: Path, names: FrameNames, video: str, number: int) -> np.ndarray:
    """An RGB frame in grey, uint8 (H, W)."""
    paths = names.find(root / video, "rgb", number)
    if not paths:
        raise DataError(f"'{video}' lacks frame {number}")
    return read_image(paths[0], cv2.IMREAD_GRAYSCALE)


def read_strictly(path: Path) -> tuple[np.ndarray, bool]:
    """An image in grey, uint8 (H, W), and whether its data are damaged somewhere inside.

    Raises DataError if it cannot be read or breaks off early.
    """
    data = read_image_file(path)
    check_image(data, str(path))
    try:
        return simplejpeg.decode_jpeg(data, "GRAY")[..., 0], False
    except ValueError:  # also what decoders accept without a word
        image = decode_image(data, cv2.IMREAD_GRAYSCALE, str(path))
        return image, data.startswith(JPEG_START)


def _sizes(sizes: Sequence[tuple[int, int]], most: int = 5) -> str:
    text = ", ".join(f"{width}x{height}" for width, height in sizes[:most])
    return text + (", ..." if len(sizes) > most else "")
