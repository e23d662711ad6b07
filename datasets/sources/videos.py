"""Video files as a source, through PyAV (FFmpeg's decoders): all frames, or those of a clip.

A clip is read by seeking to the key frame before it and decoding to its last frame.
"""

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from datasets.files import DataError
from datasets.records import VideoRecord
from datasets.sources.reader import Reader

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)
# A broken video is reported with its reason; the decoders' own lines would only drown it.
av.logging.set_level(av.logging.PANIC)
logging.getLogger("libav").setLevel(logging.CRITICAL)


class VideoReader(Reader):
    """Reads RGB from video files, as if they had been extracted first.

    A frame is stretched to `prepared` and then to `size`, as extracting it and reading the frame
    folder do: what differs is the loss of the JPEG file in between.

    Args:
        root: folder of the videos: a record's folder with a suffix like .mp4.
        size: see `Reader`.
        prepared: (width, height) that frames would have been extracted at, see prepare_videos.py.
    """

    def __init__(self, root: Path, size: tuple[int, int], prepared: tuple[int, int] = (340, 256)):
        super().__init__("rgb", size)
        self.root, self.prepared = root, prepared

    def write(
        self, record: VideoRecord, numbers: Iterable[int], slots: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        path = find_video(self.root, record.folder)
        numbers = list(numbers)
        try:
            if path is None:
                raise DataError(f"no video {self.root / record.folder}.*")
            pictures = decode_numbers(path, numbers, record.count)
            for picture, slot in zip(pictures, slots, strict=False):
                cv2.resize(cv2.resize(picture, self.prepared), self.size, dst=slot)
                yield slot
        except DataError as error:
            raise DataError(f"{record.line}: '{record.folder}': {error}") from None


@lru_cache(maxsize=1 << 16)
def find_video(root: Path, folder: str) -> Path | None:
    """The video file of a record, or None."""
    candidates = (root / f"{folder}{suffix}" for suffix in sorted(VIDEO_SUFFIXES))
    return next((path for path in candidates if path.is_file()), None)


def decode_numbers(path: Path, numbers: list[int], count: int) -> Iterator[np.ndarray]:
    """The frames of ascending numbers, from 1, uint8 (H, W, 3) in RGB order.

    Seeks where the file's time stamps can be trusted to number its `count` frames, and else
    decodes from the beginning. Raises DataError if the file cannot be opened or breaks off.
    """
    done = 0
    try:
        times, keys = frame_times(path)
        if len(times) == count and numbers[0] > 1:
            for image in _decode_seeking(path, numbers, times, keys):
                yield image
                done += 1
        if done < len(numbers):
            for image in _decode_in_order(path, numbers[done:]):
                yield image
                done += 1
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        last = numbers[done - 1] if done else numbers[0] - 1
        raise DataError(f"decoding {path} failed after frame {last}: {reason}") from None
    if done < len(numbers):
        raise DataError(f"{path} ends before frame {numbers[done]}; correct the list's count")


def read_frames(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Every frame of a video, uint8 (H, W, 3) in BGR order, stretched to `size` (width, height).

    Raises DataError, with the number of frames decoded so far, if the file cannot be opened,
    holds no video, breaks off, or decodes to nothing.
    """
    done = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(_video_stream(container)):
                picture = _picture(frame, "bgr24")
                yield cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
                done += 1
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"decoding failed after frame {done}: {reason}") from None
    if done == 0:
        raise DataError("the video has no frames")


@lru_cache(maxsize=1 << 14)
def frame_times(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Time stamps of all frames in the order they are shown, and those of the key frames.

    Found without decoding. Both are empty if some packet has no time stamp, two have the same, or
    some are not to be shown: such a file must be decoded from its beginning.
    """
    with av.open(str(path)) as container:
        stream = _video_stream(container)
        packets = [p for p in container.demux(stream) if p.size]
    times = [p.pts for p in packets]
    nothing = np.empty(0, np.int64)
    if None in times or len(set(times)) < len(times) or any(p.is_discard for p in packets):
        return nothing, nothing
    keys = [p.pts for p in packets if p.is_keyframe]
    return np.sort(np.array(times, np.int64)), np.sort(np.array(keys, np.int64))


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise DataError(f"{container.name} holds no video stream")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # processes are the parallelism
    return stream


def _decode_in_order(path: Path, numbers: list[int]) -> Iterator[np.ndarray]:
    wanted, last = set(numbers), numbers[-1]
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(_video_stream(container)), 1):
            if number in wanted:
                yield _picture(frame)
            if number >= last:
                return


def _decode_seeking(
    path: Path, numbers: list[int], times: np.ndarray, keys: np.ndarray
) -> Iterator[np.ndarray]:
    """Decodes from the key frame before each gap; stops where a time stamp is not the next one."""
    with av.open(str(path)) as container:
        stream = _video_stream(container)
        frames, place = iter(()), -2  # place: of the frame decoded last
        for target in (number - 1 for number in numbers):
            key = keys[np.searchsorted(keys, times[target], side="right") - 1]
            key_place = int(np.searchsorted(times, key))
            if place < 0 or key_place > place + 1:
                container.seek(int(key), stream=stream)
                frames, place = container.decode(stream), key_place - 1
                skip_before = key
            while place < target:
                frame = next(frames, None)
                if frame is None:
                    return
                if frame.pts is not None and frame.pts < skip_before:
                    continue  # shown before the key frame, and lacks what it refers to
                place += 1
                if frame.pts != times[place]:
                    return
            yield _picture(frame)


def _picture(frame: av.VideoFrame, order: str = "rgb24") -> np.ndarray:
    """The picture as players show it; the file's rotation is in degrees counter-clockwise."""
    image = frame.to_ndarray(format=order)
    turns = frame.rotation // 90
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
