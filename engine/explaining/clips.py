"""Which clip of a video is explained: of a file the central one or one from a given time on."""

import itertools

import numpy as np

from datasets import DataError
from datasets.sampling import single_clip
from engine.applying.footage import Footage
from engine.applying.predictor import AppliedNetwork
from engine.applying.sources import VideoSource
from engine.explaining.pictures import Shown
from video_transforms import CenterCrop


def clip_of_video(applied: AppliedNetwork, source: VideoSource, at: float | None) -> Shown:
    """The clip of a video, as the network sees its centre.

    Args:
        at: second at which the clip begins; None: as late as early, where the length is known.

    A video shorter than a clip is repeated from its first frame, as in a test. Raises DataError,
    naming the video, for one that cannot be read or has nothing at that time.
    """
    spec = applied.network.spec
    wanted = spec.frames + (spec.modality == "flow")  # flow is between two frames
    if at is None:
        at = _middle(source, applied.network.fps, wanted) if source.seekable else 0.0
    footage = Footage(source, applied.network.fps, at)
    timed = list(itertools.islice(footage, wanted))
    if len(timed) < 2:
        raise DataError(f"{source.name}: fewer than 2 frames from {at:.2f} seconds on")
    images = np.stack(list(applied.images(picture for _, picture in timed)))  # (<= T, h, w, C)
    (numbers,) = single_clip(len(images), spec.frames)
    frames = CenterCrop(spec.input.crop)(images[numbers - 1])
    return Shown(source.name, frames, timed[0][0], footage.rate, notes=tuple(footage.notes))


def _middle(source: VideoSource, fps: float | None, frames: int) -> float:
    """Seconds before a clip of so many frames in the middle; 0 where the length is not known."""
    footage = Footage(source, fps)
    next(iter(footage), None)
    return max(0.0, ((footage.seconds or 0.0) - frames / (footage.rate or 25.0)) / 2)
