"""Trained networks applied to frames in memory: one network, or an RGB and a flow network fused.

    from engine.applying.predictor import load_predictor

    predictor = load_predictor(Path("checkpoint/mine_rgb_I3D64f_bert2_split1"))
    probabilities = predictor.predict(frames)  # uint8 (T, H, W, 3), RGB -> float64 (classes,)

Frames become views as in the tests: the score of a trimmed video is the test script's.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets.flow.engines import create_flow, encode_flow
from datasets.sampling import CLIP_RULES
from engine import UsageError
from engine.applying.networks import TrainedNetwork, load_network
from engine.config import SpeedConfig
from engine.data import normalization
from engine.distributed import choose_device
from engine.loading import ClipViews
from engine.metrics import fuse, softmax, unit_scale
from engine.speed import InferenceEncoder, choose_speed, fit, views_at_once
from engine.speed.presets import Speed
from engine.testing.score import score_clips
from video_transforms import views

FLOW_BATCH = 16  # pairs of frames whose flow is computed at once
MOST_BYTES = 4 << 30  # of a video that is classified as one


@dataclass(frozen=True)
class AppliedNetwork:
    """A trained network on its device, at the speed it is computed at."""

    network: TrainedNetwork
    device: torch.device
    speed: Speed
    batch_size: int

    @property
    def frames(self) -> int:
        """Of a clip."""
        return self.network.spec.frames

    @cached_property
    def _encode(self) -> InferenceEncoder:
        return InferenceEncoder(fit(self.network.model.to(self.device), self.speed), self.speed)

    @cached_property
    def _flow(self):
        return create_flow(self.network.preparation.flow, str(self.device))

    def images(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pictures, uint8 (H, W, 3), RGB -> what the network sees of each, at its own size: uint8
        (h, w, 3); or of each pair of neighbours, flow, uint8 (h, w, 2): one fewer."""
        prepared = (self.network.preparation.width, self.network.preparation.height)
        stretched = (p if None in prepared else cv2.resize(p, prepared) for p in pictures)
        size = self.network.spec.input.resize
        seen = self._flow_images(stretched) if self.network.spec.modality == "flow" else stretched
        for image in seen:
            yield cv2.resize(image, size)

    def _flow_images(self, pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        last = [cv2.cvtColor(p, cv2.COLOR_RGB2BGR) for p in itertools.islice(pictures, 1)]
        while more := [
            cv2.cvtColor(p, cv2.COLOR_RGB2BGR) for p in itertools.islice(pictures, FLOW_BATCH)
        ]:
            flow = self._flow(np.stack(last + more))  # (N, 2, H, W)
            for image in encode_flow(flow, self.network.preparation.bound):
                yield cv2.merge(list(image))
            last = more[-1:]

    @torch.inference_mode()
    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Views, uint8 (N, T, H, W, C) -> logits, float32 (N, classes)."""
        prepare = normalization(self.network.spec, self.speed.channels_last)
        inputs = prepare(torch.from_numpy(batch).to(self.device))
        return self.network.model.classify(self._encode(inputs)).float().cpu().numpy()

    def score(self, clips: Iterable[np.ndarray], ten_crop: bool, name: str) -> Iterator[np.ndarray]:
        """The logits of each clip, uint8 (T, h, w, C): the mean over its views, float32 (classes,).

        Raises UsageError, with the video's `name`, for logits that are not finite.
        """
        crop, flip = self.network.spec.input.crop, self.network.flip
        shown = (
            ClipViews(row, list(views(clip, crop, ten_crop, flip)))
            for row, clip in enumerate(clips)
        )
        yield from self._scores(shown, name)

    def score_video(
        self, images: np.ndarray, numbers: Sequence[np.ndarray], ten_crop: bool, name: str
    ) -> np.ndarray:
        """The logits of a video, (T, h, w, C): the mean over the views of its clips, whose frame
        `numbers` count from 1."""
        crop, flip = self.network.spec.input.crop, self.network.flip
        shown = (
            ClipViews(0, list(views(images[own - 1], crop, ten_crop, flip))) for own in numbers
        )
        (scores,) = self._scores(shown, name)
        return scores

    def _scores(self, clips: Iterable[ClipViews], name: str) -> Iterator[np.ndarray]:
        scored = score_clips(
            clips,
            self.batch_size,
            lambda batch, rows: self.logits(batch),
            lambda row: name,
            len(self.network.classes),
        )
        for _, mean, _, error in scored:
            if error:
                raise UsageError(error)
            yield mean


@dataclass(frozen=True)
class Predictor:
    """One network, or an RGB and a flow network whose scores are fused.

    Attributes:
        classes: names, by number.
        clips: a key of CLIP_RULES: all consecutive clips, or the central one.
        ten_crop: centre and corner crops and their mirror images, or the centre alone.
    """

    networks: tuple[AppliedNetwork, ...]
    clips: str = "multi"
    ten_crop: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        return self.networks[0].network.classes

    @property
    def fps(self) -> float | None:
        """Frames a second of the training's videos, None where that is not recorded."""
        known = [a.network.fps for a in self.networks if a.network.fps]
        return known[0] if known else None

    def predict(self, frames: Iterable[np.ndarray], name: str = "the video") -> np.ndarray:
        """Frames of a video, uint8 (H, W, 3), RGB, at `fps` -> probabilities, float64 (classes,).

        Raises UsageError, with the video's `name`, for fewer than two frames.
        """
        return softmax(self.scores(frames, name)[None])[0]

    def scores(self, frames: Iterable[np.ndarray], name: str = "the video") -> np.ndarray:
        """The same before the softmax: the test's scores, or of two streams `fused_logits`."""
        gathered = self._gather(frames, name)
        if len(gathered[0]) < 2:
            raise UsageError(f"{name} has fewer than 2 frames: there is no motion to classify")
        rule = CLIP_RULES[self.clips]
        scores = [
            applied.score_video(images, rule(len(images), applied.frames), self.ten_crop, name)[
                None
            ]
            for applied, images in zip(self.networks, gathered, strict=True)
        ]
        return fused_logits(scores)[0]

    def _gather(self, frames: Iterable[np.ndarray], name: str) -> list[np.ndarray]:
        """What each network sees of all frames, uint8 (T, h, w, C) each."""
        images: list[list[np.ndarray]] = [[] for _ in self.networks]
        taken = 0
        for row in self.streams(frames):
            for own, image in zip(images, row, strict=True):
                if image is not None:  # flow is one fewer
                    own.append(image)
                    taken += image.nbytes
            if taken > MOST_BYTES:
                raise UsageError(
                    f"{name} is too long to be classified as one clip (over {len(images[0])} "
                    "frames); --timeline shows what happens when, at any length"
                )
        return [np.stack(own) if own else np.empty((0, 0, 0, 0), np.uint8) for own in images]

    def streams(self, frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray | None, ...]]:
        """What each network sees of frame after frame, uint8 (h, w, C); None after its last."""
        copies = itertools.tee(frames, len(self.networks))
        seen = (a.images(own) for a, own in zip(self.networks, copies, strict=True))
        return itertools.zip_longest(*seen)


def fused_logits(streams: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of streams, (N, classes) each -> one, ranked as the tests' late fusion ranks them; a
    single stream's stay as they are."""
    return streams[0] if len(streams) == 1 else fuse(streams) * unit_scale(streams)


def load_predictor(
    path: Path,
    path_flow: Path | None = None,
    computing: SpeedConfig | None = None,
    device: str | None = None,
    clips: str = "multi",
    ten_crop: bool = True,
    batch_size: int | None = None,
) -> Predictor:
    """Opens one network, or an RGB and a flow network of the same classes, to apply them.

    Args:
        path, path_flow: a run's folder or a file, see `load_network`.
        batch_size: views at once; None: as the device likes it.

    Raises CheckpointError or UsageError for files that cannot be used, or not together.
    """
    device = choose_device(device)
    speed = choose_speed(computing or SpeedConfig(), device)
    if path_flow is None:
        networks = [load_network(path)]
    else:
        networks = [load_network(path, "rgb"), load_network(path_flow, "flow")]
        if networks[0].classes != networks[1].classes:
            raise UsageError(f"{path} and {path_flow} tell other classes apart")
    size = batch_size or views_at_once(device)
    applied = tuple(AppliedNetwork(network, device, speed, size) for network in networks)
    return Predictor(applied, clips, ten_crop)
