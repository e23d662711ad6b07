"""Whether an exported network answers what the tests would."""

import cv2
import numpy as np
import torch

from engine import UsageError
from engine.data import normalization
from engine.exporting.deployed import Deployed
from engine.exporting.formats import Answers
from video_transforms import views

AGREEMENT = 1e-4  # largest difference of two probabilities, and a hundredth of their logarithms'
SMALLEST = 1e-30  # probability whose logarithm float32 still tells


@torch.inference_mode()
def as_tested(deployed: Deployed, clips: np.ndarray) -> np.ndarray:
    """What the test script makes of clips (N, T, H, W, C): probabilities float32 (N, classes)."""
    spec, found = deployed.network.spec, []
    prepare = normalization(spec)
    for clip in clips:
        for size in deployed.sizes:
            clip = np.stack([cv2.resize(frame, size) for frame in clip])
        crops = np.stack([*views(clip, spec.input.crop, deployed.ten_crop, deployed.flip)])
        logits = deployed.network(prepare(torch.from_numpy(crops)))
        found.append(logits.mean(dim=0).softmax(dim=0).numpy())
    return np.stack(found)


def check_answers(run: Answers, deployed: Deployed, clips: np.ndarray, name: str) -> float:
    """The largest difference between the answers of an exported network and PyTorch's.

    The clips are given all at once, the first also alone and at another size, since batch and
    size are free. Raises UsageError where they do not agree.
    """
    alone = clips[:1]
    larger = np.ascontiguousarray(alone.repeat(2, axis=2)[:, :, :, 1:])
    with torch.inference_mode():
        wanted, of_larger = (deployed(torch.from_numpy(x)).numpy() for x in (clips, larger))
    found = run(clips)
    worst = max(
        _difference(found, wanted),
        _difference(found, as_tested(deployed, clips)),
        _difference(run(alone), wanted[:1]),
        _difference(run(larger), of_larger),
    )
    if not worst <= AGREEMENT:
        raise UsageError(
            f"the {name} network does not agree with PyTorch: its probabilities (or a hundredth of "
            f"their logarithms) differ by {worst:.1e}, more than {AGREEMENT:g}; nothing was written"
        )
    return worst


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of probabilities, and a hundredth of that of their logarithms: a network that is sure of its
    answer gives 0 and 1, whatever goes wrong. NaN, which is no agreement, stays."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    logs = np.log(np.maximum(found, SMALLEST)) - np.log(np.maximum(wanted, SMALLEST))
    return float(np.maximum(np.abs(found - wanted), np.abs(logs) / 100).max())
