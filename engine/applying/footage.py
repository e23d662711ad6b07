"""A source's pictures, one after the other, at the rate that a network expects."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np

from datasets.files import DataError
from datasets.sources.videos import at_rate, picture_of, video_stream
from engine.applying.sources import VideoSource

SAME_RATE = 0.02  # rates that differ by less are one: 29.97 and 30
SILENCE = 30.0  # seconds that a source may give nothing


@dataclass
class Footage:
    """The pictures of a source.

    Attributes:
        fps: pictures a second that are wanted; None: as they come.
        start: seconds of the source that are left out.
        rate: pictures a second that come, once the source is open.
        seconds: of the whole video as its file says; None where it does not.
        notes: what a user should know of it: another rate, a damaged end.
    """

    source: VideoSource
    fps: float | None = None
    start: float = 0.0
    deadline: float = SILENCE
    rate: float = 0.0
    seconds: float | None = None
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """(seconds, uint8 (H, W, 3), RGB) of each picture, from `start` on.

        A source that breaks off gives what comes before, and a note; raises DataError, naming it,
        if nothing comes before, if it holds no video, or does not deliver.
        """
        container = None
        try:
            container = self.source.open(self.deadline)
            stream = video_stream(container)
            own, irregular = _rate_of(stream)
            if container.duration:
                self.seconds = container.duration / av.time_base
            pictures = self._decoded(container, stream, own)
            if self.fps is None or own and abs(own / self.fps - 1) < SAME_RATE and not irregular:
                self.rate = own or 25.0
            else:
                self.rate = self.fps
                was = f"{own:.4g} pictures a second" if own else "no constant rate"
                self.notes.append(f"{was}{', changing' * irregular}: resampled to {self.fps:.4g}")
                pictures = at_rate(pictures, self.fps)
            for seconds, picture in pictures:
                if seconds >= self.start - 1e-6:
                    yield seconds, picture
        except DataError as error:
            raise DataError(f"{self.source.name}: {error}") from None
        finally:
            if container is not None:
                container.close()

    def _decoded(
        self, container: av.container.InputContainer, stream: av.VideoStream, rate: float | None
    ) -> Iterator[tuple[float, np.ndarray]]:
        """The pictures as they come, with the seconds at which they are shown."""
        done, origin = 0, float((stream.start_time or 0) * (stream.time_base or 0))
        if self.start and self.source.seekable:  # to the key frame before
            container.seek(int((self.start + origin) * av.time_base))
        last = -1 / (rate or 25.0)
        try:
            for frame in container.decode(stream):
                seconds = last + 1 / (rate or 25.0) if frame.time is None else frame.time - origin
                last = seconds
                yield seconds, picture_of(frame)
                done += 1
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if done == 0:
                raise DataError(f"decoding failed before the first picture: {reason}") from None
            self.notes.append(
                f"damaged after picture {done} ({last:.1f} s), used up to there: {reason}"
            )
        if done == 0 and not self.start:
            raise DataError("the video has no pictures")


def _rate_of(stream: av.VideoStream) -> tuple[float | None, bool]:
    """Pictures a second, None where the file does not say; and whether that changes."""
    average, base = (float(r) if r else None for r in (stream.average_rate, stream.base_rate))
    irregular = bool(average and base) and abs(average / base - 1) > SAME_RATE
    return average or base, irregular
