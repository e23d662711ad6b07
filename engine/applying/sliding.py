"""A video of any length -> scores of windows that slide over it; what is done survives a kill."""

import contextlib
import itertools
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine import UsageError
from engine.applying.footage import Footage
from engine.applying.predictor import Predictor, fused_logits
from engine.files import append_whole
from engine.metrics import softmax

SeenFrame = tuple[float, tuple[np.ndarray | None, ...]]  # seconds, what each network sees


def slide(
    predictor: Predictor, footage: Footage, step: float | None, progress: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Windows over a whole video: seconds, (W, 2), and their probabilities, (W, classes).

    Memory holds some windows and all scores, whatever the video's length.

    Args:
        step: seconds between the beginnings of windows; None: a quarter of a window.
        progress: where scores are kept as they come. A run that ended early resumes there;
            the file is removed at the end.

    Raises UsageError or DataError, naming the source.
    """
    key = _key(predictor, footage, step)
    done = _read_progress(progress, key) if progress else []
    scored = [(tuple(w["window"]), w["scores"]) for w in done] if footage.source.seekable else []
    if scored:
        footage.start = scored.pop()[0][0]  # its window is scored again: the last ones depend on it
    bar = tqdm(unit="s", desc=footage.source.stem, dynamic_ncols=True, disable=None)
    bar.bar_format = "{desc}: {n:.0f} of {total} s |{bar}| {elapsed}<{remaining}"
    if progress and not scored:
        progress.parent.mkdir(parents=True, exist_ok=True)
        progress.write_text(json.dumps(key) + "\n", encoding="utf-8")
    for window, scores in score_windows(predictor, footage, step):
        scored.append((window, scores.tolist()))
        if progress:
            line = {"window": window, "scores": scored[-1][1]}
            append_whole(progress, [json.dumps(line) + "\n"])
        bar.total = round(footage.seconds) if footage.seconds else None
        bar.update(max(0.0, window[1] - bar.n))
    bar.close()
    if not scored:
        raise UsageError(f"{footage.source.name} has fewer than 2 frames: nothing can happen")
    if progress:
        progress.unlink(missing_ok=True)
    windows, scores = zip(*scored, strict=True)
    return np.array(windows), softmax(np.array(scores, np.float32))


def score_windows(
    predictor: Predictor, footage: Footage, step: float | None
) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
    """Each window's seconds, from when to when, and its scores, float32 (classes,)."""
    lengths = {applied.frames for applied in predictor.networks}
    if len(lengths) > 1:
        raise UsageError("a timeline needs networks whose clips have the same number of frames")
    (length,) = lengths
    windows = find_windows(_rows(predictor, footage), length, footage, step)
    while batch := list(itertools.islice(windows, predictor.networks[0].batch_size)):
        clips = zip(*(clips for _, clips in batch), strict=True)  # by network
        scores = [
            np.stack(list(applied.score(own, predictor.ten_crop, footage.source.name)))
            for applied, own in zip(predictor.networks, clips, strict=True)
        ]
        yield from zip((seconds for seconds, _ in batch), fused_logits(scores), strict=True)


def _rows(predictor: Predictor, footage: Footage) -> Iterator[SeenFrame]:
    """What the networks see of each frame, and when."""
    times: deque[float] = deque()

    def frames() -> Iterator[np.ndarray]:
        for seconds, picture in footage:
            times.append(seconds)
            yield picture

    for images in predictor.streams(frames()):
        yield times.popleft(), images


def find_windows(
    rows: Iterator[SeenFrame], length: int, footage: Footage, step: float | None
) -> Iterator[tuple[tuple[float, float], list[np.ndarray]]]:
    """Windows of `length` rows: from when to when, and each network's clip.

    The last one ends with the video. A video shorter than a window is repeated until it fills one.
    """
    held: deque[SeenFrame] = deque(maxlen=length)
    stride, fresh = length, 0  # rows between windows; rows that no window has seen
    for row in rows:
        if not held:
            stride = round(step * footage.rate) if step else length // 4
            stride = min(max(stride, 1), length)
        held.append(row)
        fresh += 1
        if len(held) == length and (fresh >= stride or fresh == length):
            yield _window(held, length, footage.rate)
            fresh = 0
    if len(held) > 1 and fresh:
        yield _window(held, length, footage.rate)


def _window(
    held: deque[SeenFrame], length: int, rate: float
) -> tuple[tuple[float, float], list[np.ndarray]]:
    rows = [row for _, row in itertools.islice(itertools.cycle(held), length)]
    clips = []
    for images in zip(*rows, strict=True):
        known = [image for image in images if image is not None]  # flow ends one frame early
        clips.append(np.stack([*known, *[known[-1]] * (length - len(known))]))
    return (held[0][0], held[-1][0] + 1 / rate), clips


def _key(predictor: Predictor, footage: Footage, step: float | None) -> dict:
    """What scores that were kept must have in common with a run that resumes from them."""
    files = [applied.network.path for applied in predictor.networks]
    files += [Path(footage.source.name)] if footage.source.seekable else []
    states = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    settings = (footage.fps, step, predictor.ten_crop, predictor.networks[0].speed.preset)
    return json.loads(json.dumps({"files": states, "settings": settings}))


def _read_progress(path: Path, key: dict) -> list[dict]:
    """The windows that an earlier run of the same kind scored; none if it was of another kind."""
    lines: list[dict] = []
    with contextlib.suppress(OSError, ValueError):  # none yet, or the last line was cut off
        for line in path.read_text(encoding="utf-8").splitlines():
            lines.append(json.loads(line))
    return lines[1:] if lines[:1] == [key] else []
