"""What a video file says of its frames without decoding them all: rate, size, changes of rate."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

import av
import numpy as np

from datasets.files import DataError
from datasets.records import MAX_PIXELS

MOST_FPS = 1000.0  # a file that claims more does not know
OTHER_RATE = 0.05  # share by which a frame rate is another one
_UNEVEN = 0.25  # share by which a gap between frames is another one
_MOST_UNEVEN = 0.05  # share of such gaps that frames dropped here and there may make


@dataclass(frozen=True)
class VideoFacts:
    """One video file.

    Attributes:
        fps: frames per second on average, None where the file does not tell.
        size: (width, height) in pixels as players show it.
        changing: whether the frame rate changes within the video.
        frames: how many the file claims, 0 where it does not.
        damage: what of it is not there, for people; "" if nothing is known to be missing.
    """

    fps: float | None
    size: tuple[int, int]
    changing: bool
    frames: int = 0
    damage: str = ""


def measure(path: Path) -> VideoFacts:
    """The facts of a video file; raises DataError if its first frame cannot be decoded."""
    try:
        times, _ = frame_times(path)
        with av.open(str(path)) as container:
            stream = video_stream(container)
            stated, tick = stream.average_rate, stream.time_base
            frames, frame = max(len(times), stream.frames), next(container.decode(stream), None)
    except (av.FFmpegError, OSError) as error:
        raise DataError(error.strerror or type(error).__name__) from None
    if frame is None:
        raise DataError("the video has no frames")
    size = (frame.width, frame.height)
    gaps = np.diff(times)
    fps = float(stated) if stated else 0.0
    changing = False
    if len(gaps) and tick:
        usual = float(np.median(gaps))
        uneven = np.abs(gaps - usual) > max(_UNEVEN * usual, 1.5)  # ticks: times are rounded
        changing = bool(uneven.mean() > _MOST_UNEVEN)
        seen = 1 / float(gaps.mean() * tick)
        if changing or not fps or abs(seen / fps - 1) > OTHER_RATE:
            fps = seen
    size = size[::-1] if frame.rotation % 180 else size
    return VideoFacts(round(fps, 3) if 0 < fps <= MOST_FPS else None, size, changing, frames)


def try_measure(path: Path) -> VideoFacts | None:
    """The same, None for a file that cannot be decoded: whoever reads it will say so."""
    try:
        return measure(path)
    except DataError:
        return None


def usual_fps(facts: Sequence[VideoFacts]) -> float | None:
    """The median frame rate of videos, None where none tells."""
    rates = [each.fps for each in facts if each.fps]
    return median(rates) if rates else None


def usual_size(facts: Sequence[VideoFacts]) -> str:
    """The most frequent size, "WxH"."""
    (width, height), _ = Counter(each.size for each in facts).most_common(1)[0]
    return f"{width}x{height}"


@lru_cache(maxsize=1 << 14)
def frame_times(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Time stamps of all frames in the order they are shown, and those of the key frames.

    Found without decoding. Both are empty if some packet has no time stamp, two have the same, or
    some are not to be shown: such a file must be decoded from its beginning.
    """
    with av.open(str(path)) as container:
        stream = video_stream(container, sys.maxsize)  # nothing is decoded
        packets = [p for p in container.demux(stream) if p.size]
    times = [p.pts for p in packets]
    nothing = np.empty(0, np.int64)
    if None in times or len(set(times)) < len(times) or any(p.is_discard for p in packets):
        return nothing, nothing
    keys = [p.pts for p in packets if p.is_keyframe]
    return np.sort(np.array(times, np.int64)), np.sort(np.array(keys, np.int64))


def video_stream(
    container: av.container.InputContainer, max_pixels: int = MAX_PIXELS
) -> av.VideoStream:
    """The stream of pictures; raises DataError if there is none, or one of too many pixels."""
    if not container.streams.video:
        raise DataError(f"{container.name} holds no video stream")
    stream = container.streams.video[0]
    if stream.width * stream.height > max_pixels:
        size = f"{stream.width}x{stream.height}"
        raise DataError(f"{container.name} claims {size} pixels; at most {max_pixels:,} are read")
    stream.codec_context.thread_count = 1  # processes are the parallelism
    return stream
