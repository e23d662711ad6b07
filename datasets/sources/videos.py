"""Video files as a source, through PyAV (FFmpeg's decoders): all frames, or those of a clip.

A clip is read by seeking to the key frame before it and decoding to its last frame.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from datasets.files import DataError
from datasets.records import MAX_PIXELS, VideoRecord
from datasets.sources.facts import frame_times, video_stream
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
        max_pixels: a larger video is refused.
    """

    def __init__(
        self,
        root: Path,
        size: tuple[int, int],
        prepared: tuple[int, int] = (340, 256),
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__("rgb", size)
        self.root, self.prepared, self.max_pixels = root, prepared, max_pixels
        self._decoder: tuple[object, Decoder] | None = None

    def write(
        self, record: VideoRecord, numbers: Iterable[int], slots: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        try:
            pictures = self._open(record).frames(list(numbers))
            for picture, slot in zip(pictures, slots, strict=False):
                cv2.resize(cv2.resize(picture, self.prepared), self.size, dst=slot)
                yield slot
        except DataError as error:
            self._decoder = None
            raise DataError(f"{record.line}: '{record.folder}': {error}") from None

    def _open(self, record: VideoRecord) -> "Decoder":
        """The video's decoder, kept until another video is read: clips come one after the other."""
        key = os.getpid(), record  # a forked process must not move its parent's place in the file
        if self._decoder is None or self._decoder[0] != key:
            path = find_video(self.root, record.folder)
            if path is None:
                raise DataError(f"no video {self.root / record.folder}.*")
            self._decoder = key, Decoder(path, record.count, self.max_pixels)
        return self._decoder[1]


@lru_cache(maxsize=1 << 16)
def find_video(root: Path, folder: str) -> Path | None:
    """The video file of a record, or None."""
    candidates = (root / f"{folder}{suffix}" for suffix in sorted(VIDEO_SUFFIXES))
    return next((path for path in candidates if path.is_file()), None)


class Decoder:
    """Decodes frames of a video file by their numbers, each call from where the last one ended.

    Where the file's time stamps can be trusted to number its `count` frames, it seeks to the key
    frame before each gap. Else it decodes frame after frame, from the beginning for a number that
    lies before the last one.
    """

    def __init__(self, path: Path, count: int, max_pixels: int = MAX_PIXELS):
        self.path, self.count, self.max_pixels = path, count, max_pixels
        self._container: av.container.InputContainer | None = None
        self._place = -1  # of the frame decoded last, from 0

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames of ascending numbers, from 1, uint8 (H, W, 3) in RGB order.

        Raises DataError if the file cannot be opened, breaks off, or has fewer frames.
        """
        try:
            if self._container is None:
                self._times, self._keys = frame_times(self.path)
                self._trusted = len(self._times) == self.count
                self._rewind()
            for number in numbers:
                frame = self._decode(number - 1)
                if frame is None:
                    raise DataError(
                        f"{self.path} ends before frame {number}; correct the list's count"
                    )
                yield picture_of(frame)
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or type(error).__name__
            last = max(self._place + 1, 0)
            raise DataError(f"decoding {self.path} failed after frame {last}: {reason}") from None

    def _decode(self, target: int) -> av.VideoFrame | None:
        """The frame at a place; None if the video ends before it."""
        if self._trusted:
            frame = self._seek_and_decode(target)
            if frame is not None:
                return frame
            self._trusted = False
            self._rewind()
        elif target <= self._place:
            self._rewind()
        for frame in self._frames:
            self._place += 1
            if self._place == target:
                return frame
        return None

    def _seek_and_decode(self, target: int) -> av.VideoFrame | None:
        """The same by time stamps; None where one is not the next of `frame_times`."""
        if target >= len(self._times):
            return None
        key = self._keys[np.searchsorted(self._keys, self._times[target], side="right") - 1]
        key_place = int(np.searchsorted(self._times, key))
        if target <= self._place or key_place > self._place + 1:
            self._container.seek(int(key), stream=self._stream)
            self._frames, self._place = self._container.decode(self._stream), key_place - 1
            self._skip_before = key
        for frame in self._frames:
            if frame.pts is not None and frame.pts < self._skip_before:
                continue  # shown before the key frame, and lacks what it refers to
            self._place += 1
            if frame.pts != self._times[self._place]:
                return None
            if self._place == target:
                return frame
        return None

    def _rewind(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = av.open(str(self.path))
        self._stream = video_stream(self._container, self.max_pixels)
        self._frames, self._place = self._container.decode(self._stream), -1
        self._skip_before = -np.inf


def read_frames(
    path: Path,
    size: tuple[int, int],
    fps: float | None = None,
    damage: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Every frame of a video, uint8 (H, W, 3) in BGR order, stretched to `size` (width, height).

    `fps`: frames per second that they are resampled to; None: as they come.

    Raises DataError, with the number of frames decoded so far, if the file cannot be opened,
    holds no video, breaks off, or decodes to nothing. Given a list for its `damage`, a video that
    breaks off ends there, and the reason is appended.
    """
    done = 0

    def decoded(stream: av.VideoStream) -> Iterator[tuple[float, np.ndarray]]:
        nonlocal done
        rate = float(stream.average_rate or 25)
        for frame in container.decode(stream):
            picture = picture_of(frame, "bgr24")
            seconds = done / rate if frame.time is None else frame.time
            yield seconds, cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
            done += 1

    try:
        with av.open(str(path)) as container:
            pictures = decoded(video_stream(container))
            for _, picture in pictures if fps is None else at_rate(pictures, fps):
                yield picture
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        damaged = f"decoding failed after frame {done}: {reason}"
        if damage is None or done < 2:
            hint = f"; --keep-damaged uses the {done} frames" if done > 1 else ""
            raise DataError(damaged + hint) from None
        damage.append(damaged)
    if done == 0:
        raise DataError("the video has no frames")


def at_rate(
    pictures: Iterable[tuple[float, np.ndarray]], fps: float
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, picture) resampled: at every multiple of 1/fps seconds the one that is shown then.

    Half of 1/fps is allowed for time stamps that were rounded.
    """
    held, number = None, 0
    for seconds, picture in pictures:
        if held is None:
            number = round(seconds * fps)
        while held is not None and (number + 0.5) / fps < seconds:
            yield number / fps, held
            number += 1
        held = picture
    if held is not None:
        yield number / fps, held


def picture_of(frame: av.VideoFrame, order: str = "rgb24") -> np.ndarray:
    """The picture as players show it; the file's rotation is in degrees counter-clockwise."""
    image = frame.to_ndarray(format=order)
    turns = frame.rotation // 90
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
