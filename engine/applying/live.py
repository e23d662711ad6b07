"""A live source: a line a second with the action, its probability and the lag.

A thread takes the frames as they come. Each classification takes the newest ones, so that one
that is slower than the source leaves frames out, and its lag does not grow.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine import UsageError
from engine.applying.footage import Footage
from engine.applying.predictor import Predictor
from engine.metrics import softmax

EVERY = 1.0  # seconds between lines


@dataclass(frozen=True)
class LiveAnswer:
    """What is seen now.

    Attributes:
        seconds: of the source's time, at the window's end.
        probabilities: float64 (classes,).
        lag: seconds from the arrival of the window's last frame to the answer.
        dropped: frames since the last answer that no window held.
    """

    seconds: float
    probabilities: np.ndarray
    lag: float
    dropped: int


class _Newest:
    """The newest frames of a source, filled by a thread of its own."""

    def __init__(self, footage: Footage, length: int):
        self.footage = footage
        self.frames: deque[tuple[float, float, np.ndarray]] = deque(maxlen=length)
        self.taken = 0
        self.error: Exception | None = None
        self.ended = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        try:
            for seconds, picture in self.footage:
                with self._lock:
                    self.frames.append((time.monotonic(), seconds, picture))
                    self.taken += 1
        except Exception as error:  # told to the thread that waits
            self.error = error
        finally:
            self.ended.set()

    def snapshot(self) -> tuple[int, list[tuple[float, float, np.ndarray]]]:
        """How many frames came so far, and the newest of them."""
        with self._lock:
            return self.taken, list(self.frames)


def watch(predictor: Predictor, footage: Footage) -> Iterator[LiveAnswer]:
    """Answers, at most one in `EVERY` seconds, as soon as a window is full, until the source ends.

    Raises DataError or UsageError, naming the source, if it cannot be read or ends within a window.
    """
    length = max(applied.frames for applied in predictor.networks)
    newest = _Newest(footage, length)
    answered, begun = 0, False
    next_time = time.monotonic()
    while True:
        ended = newest.ended.wait(max(0.0, next_time - time.monotonic()))
        taken, frames = newest.snapshot()
        if taken > answered and len(frames) == length:
            next_time = time.monotonic() + EVERY
            arrived, seconds, _ = frames[-1]
            scores = predictor.scores((picture for _, _, picture in frames), footage.source.name)
            dropped = max(0, taken - answered - length) if begun else 0
            answered, begun = taken, True
            lag = time.monotonic() - arrived
            yield LiveAnswer(seconds, softmax(scores[None])[0], lag, dropped)
        elif ended:
            break
        else:
            next_time = time.monotonic() + 0.02
    if newest.error is not None:
        raise newest.error
    if not begun:
        raise UsageError(f"{footage.source.name} ended before {length} frames had come")
