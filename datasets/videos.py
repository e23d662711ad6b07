"""Video files -> frames, through PyAV (FFmpeg's decoders)."""

import logging
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from datasets.lists import DataError

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)
# A broken video is reported with its reason; the decoders' own lines would only drown it.
av.logging.set_level(av.logging.PANIC)
logging.getLogger("libav").setLevel(logging.CRITICAL)


def read_frames(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Every frame of a video, uint8 (H, W, 3) in BGR order, stretched to `size` (width, height).

    Raises DataError, with the number of frames decoded so far, if the file cannot be opened,
    holds no video, breaks off, or decodes to nothing.
    """
    done = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError("the file holds no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # processes are the parallelism
            for frame in container.decode(stream):
                image = upright(frame.to_ndarray(format="bgr24"), frame.rotation)
                yield cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
                done += 1
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"decoding failed behind frame {done}: {reason}") from None
    if done == 0:
        raise DataError("the video has no frames")


def upright(image: np.ndarray, rotation: int) -> np.ndarray:
    """The picture as players show it; `rotation` is the file's, degrees counter-clockwise."""
    return np.ascontiguousarray(np.rot90(image, rotation // 90)) if rotation else image
