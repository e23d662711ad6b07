"""A split's videos, and where their images come from: frame folders, a pack, or video files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.files import DataError
from datasets.preparation import Preparation, read_preparation
from datasets.records import MAX_PIXELS, VideoRecord
from datasets.sampling import spread
from datasets.sources.facts import try_measure, usual_fps
from datasets.sources.folders import FrameNames
from datasets.sources.frames import FrameReader, check_inside, check_record
from datasets.sources.packed import SUFFIX, PackReader, check_packed, open_pack, pack_name
from datasets.sources.reader import Reader
from datasets.sources.videos import VideoReader, find_video

FOLDERS, PACKED, VIDEOS = "folders", "packed", "videos"
MEASURED = 32  # video files whose frame rate is looked up
SOURCE_KINDS = (PACKED, FOLDERS, VIDEOS)  # the order of preference


@dataclass(frozen=True)
class Source:
    """One modality of a dataset's images.

    Attributes:
        kind: one of SOURCE_KINDS.
        modality: "rgb" or "flow".
        root: the dataset's folder.
        names: file names of the images in frame folders.
        pack: the pack, of kind PACKED.
    """

    kind: str
    modality: str
    root: Path
    names: FrameNames
    pack: Path | None = None

    def check(self, records: Sequence[VideoRecord]) -> list[VideoRecord]:
        """The records, their counts known to be there, as cheaply as can be.

        Raises DataError for what is missing. A video file's count is the list's word until its
        frames are read.
        """
        if self.kind == FOLDERS:
            return [check_record(r, self.root, self.names, self.modality) for r in records]
        if self.kind == PACKED:
            pack = open_pack(self.pack)
            return [check_packed(record, pack) for record in records]
        for record in records:
            video = find_video(self.root, record.folder)
            if video is None:
                raise DataError(f"{record.line}: no video {self.root / record.folder}.*")
            check_inside(record, video, self.root)
        return list(records)

    def preparation(self) -> Preparation | None:
        """How frames and flow were made, where that is recorded."""
        if self.kind == PACKED:
            return open_pack(self.pack).metadata.preparation
        return read_preparation(self.root)

    def fps(self, records: Sequence[VideoRecord]) -> float | None:
        """The videos' usual frame rate: recorded, or that of some of the video files; else None."""
        if self.kind == VIDEOS:
            paths = [find_video(self.root, r.folder) for r in spread(records, MEASURED)]
            return usual_fps([facts for path in paths if path and (facts := try_measure(path))])
        preparation = self.preparation()
        return preparation.fps if preparation else None

    def altered(self) -> str | None:
        """How its images differ from the extracted ones, None if they do not."""
        if self.kind == VIDEOS:
            return "decoded from video files"
        pack = open_pack(self.pack).metadata if self.kind == PACKED else None
        if pack is None or not pack.size:
            return None
        return f"packed at {pack.size[0]}x{pack.size[1]}, quality {pack.quality}"

    def reader(
        self, size: tuple[int, int], scaled: bool = False, max_pixels: int = MAX_PIXELS
    ) -> Reader:
        """Reads at (width, height) `size`; `scaled`, `max_pixels`: see `JpegReader`."""
        if self.kind == FOLDERS:
            return FrameReader(self.root, self.names, self.modality, size, scaled, max_pixels)
        if self.kind == PACKED:
            return PackReader(self.pack, self.modality, size, scaled, max_pixels)
        prepared = self.preparation()
        if prepared is None or prepared.width is None:  # frames of unrecorded size
            prepared = Preparation()
        return VideoReader(self.root, size, (prepared.width, prepared.height), max_pixels)

    def __str__(self) -> str:
        if self.kind == PACKED:
            pack = open_pack(self.pack).metadata
            how = f"resized, quality {pack.quality}" if pack.size else "as they were"
            return f"{self.modality} from the pack {self.pack} ({pack.videos} videos, {how})"
        what = "frame folders" if self.kind == FOLDERS else "video files"
        return f"{self.modality} from the {what} in {self.root}"


@dataclass(frozen=True)
class Split:
    """One modality of one split of a dataset, checked against the disk.

    Attributes:
        train, val: the records; `train` is empty where only the test's list was asked for.
        class_names: one for each label.
        source: where the images come from.
        may_flip: whether a video's mirror image is one of the same class.
    """

    dataset: str
    number: int
    modality: str
    train: list[VideoRecord]
    val: list[VideoRecord]
    class_names: list[str]
    source: Source
    may_flip: bool


def choose_source(
    root: Path,
    names: FrameNames,
    modality: str,
    first: VideoRecord,
    size: tuple[int, int] | None = None,
    asked: str | None = None,
) -> Source:
    """The source that is there, or the one that is asked for.

    A pack comes first: one of the very size, else one of the original size. Then frame folders,
    then, for RGB, video files, by whether the first record is there. What is not there at all is
    taken for frame folders, whose check says what is missing.
    """
    # what is there
    packs = [root / pack_name(modality, s) for s in ([size] if size else []) + [None]]
    pack = next((path for path in packs if path.exists()), None)
    there = {
        PACKED: pack is not None,
        FOLDERS: (root / first.folder).is_dir(),
        VIDEOS: modality == "rgb" and find_video(root, first.folder) is not None,
    }
    # which of it
    kind = asked or next((kind for kind in SOURCE_KINDS if there[kind]), FOLDERS)
    if kind == PACKED and pack is None:
        others = ", ".join(path.name for path in sorted(root.glob(f"{modality}_*{SUFFIX}")))
        raise DataError(
            f"no pack {packs[0].name} in {root} (there: {others or 'none'}); make it with "
            "scripts/data/pack_frames.py"
        )
    if kind == VIDEOS and modality == "flow":
        raise DataError("flow cannot be read from video files; extract it with prepare_videos.py")
    return Source(kind, modality, root, names, pack if kind == PACKED else None)
