"""Optical flow: one interface, several engines, and the storage of flow as grey images.

    engine = create_flow("tvl1-torch", device="cuda")
    flow = engine(frames)                  # (N + 1, H, W) or (N + 1, H, W, 3), uint8, grey or BGR
    flow = engine.between(first, second)   # the same for pairs: (N, H, W[, 3]) twice

gives the displacement in pixels, float32 (N, 2, H, W): x to the right, then y downwards. Where a
point lies at (x, y) in the first frame, it lies at (x, y) + flow[:, y, x] in the second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from datasets.files import DataError

PairFlow = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class EngineSpec:
    """A row of the table of engines.

    Attributes:
        make: device name -> function of two stacks of frames, (N, H, W) or (N, H, W, 3) if it
            `sees_colour`, that returns (N, 2, H, W).
        uses_device: whether it computes in PyTorch, on a GPU if there is one.
        sees_colour: whether it wants BGR frames; the others want grey ones.
    """

    make: Callable[[str], PairFlow]
    uses_device: bool = False
    sees_colour: bool = False


class FlowEngine:
    """An engine of the table, ready to compute; see the module's docstring."""

    def __init__(self, name: str, device: str = "cpu"):
        self.name, self.spec = name, flow_spec(name)
        self.pair_flow = self.spec.make(device)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self.between(frames[:-1], frames[1:])

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if first.shape != second.shape or first.ndim not in (3, 4) or first.dtype != np.uint8:
            raise ValueError(
                "flow needs two stacks of uint8 frames of one shape, (N, H, W) or (N, H, W, 3); "
                f"got {first.dtype} {first.shape} and {second.dtype} {second.shape}"
            )
        if len(first) == 0:
            return np.empty((0, 2, *first.shape[1:3]), np.float32)
        return self.pair_flow(self._coloured(first), self._coloured(second))

    def _coloured(self, frames: np.ndarray) -> np.ndarray:
        if self.spec.sees_colour == (frames.ndim == 4):
            return frames
        code = cv2.COLOR_GRAY2BGR if self.spec.sees_colour else cv2.COLOR_BGR2GRAY
        return np.stack([cv2.cvtColor(frame, code) for frame in frames])


def _opencv(make: Callable[[], cv2.DenseOpticalFlow]) -> EngineSpec:
    """An OpenCV algorithm, which takes one pair and returns (H, W, 2), for stacks of frames."""

    def make_pair_flow(device: str) -> PairFlow:
        engine = make()

        def pair_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            flows = [engine.calc(*pair, None) for pair in zip(first, second, strict=True)]
            return np.ascontiguousarray(np.stack(flows).transpose(0, 3, 1, 2))

        return pair_flow

    return EngineSpec(make_pair_flow)


# PyTorch is imported by the engines that need it: OpenCV's workers start without it.
def _tvl1_torch(device: str) -> PairFlow:
    from datasets.flow.tvl1 import TVL1

    return TVL1(device)


def _raft(device: str, size: str = "large") -> PairFlow:
    from datasets.flow.raft import RAFT

    return RAFT(size, device)


FLOW_ENGINES = {
    # Dense inverse search (Kroeger et al., arXiv 1603.03590), OpenCV's medium preset
    "dis": _opencv(partial(cv2.DISOpticalFlow.create, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)),
    # Dual TV-L1 (Zach et al., DAGM 2007), OpenCV's default parameters
    "tvl1": _opencv(cv2.optflow.DualTVL1OpticalFlow.create),
    # Polynomial expansion (Farnebäck, SCIA 2003)
    "farneback": _opencv(cv2.FarnebackOpticalFlow.create),
    "tvl1-torch": EngineSpec(_tvl1_torch, uses_device=True),
    "raft": EngineSpec(_raft, uses_device=True, sees_colour=True),
    "raft-small": EngineSpec(partial(_raft, size="small"), uses_device=True, sees_colour=True),
}


def flow_spec(name: str) -> EngineSpec:
    """The row of an engine; raises DataError for a name that the table does not hold."""
    if name not in FLOW_ENGINES:
        raise DataError(f"no flow engine '{name}'; there are {', '.join(FLOW_ENGINES)}")
    return FLOW_ENGINES[name]


def create_flow(name: str, device: str = "cpu") -> FlowEngine:
    """The engine of a name; `device` is where those that use PyTorch compute."""
    return FlowEngine(name, device)


def encode_flow(flow: np.ndarray, bound: float) -> np.ndarray:
    """Displacement in pixels -> uint8, -bound..bound to 0..255, clipped beyond; 0 becomes 128."""
    scaled = (np.clip(flow, -bound, bound) + bound) * (255 / (2 * bound))
    return np.floor(scaled + 0.5).astype(np.uint8)


def decode_flow(image: np.ndarray, bound: float) -> np.ndarray:
    """The displacement, in pixels, that `encode_flow` stored, to its rounding."""
    return image.astype(np.float32) * (2 * bound / 255) - bound
