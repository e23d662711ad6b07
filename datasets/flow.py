"""Optical flow between two grey frames, and its storage as grey images.

Every method gives displacement in pixels, float32 (H, W, 2): x to the right, y downwards.
"""

from collections.abc import Callable

import cv2
import numpy as np

FlowMethod = Callable[[np.ndarray, np.ndarray], np.ndarray]


def dis() -> FlowMethod:
    """Dense inverse search (Kroeger et al., arXiv 1603.03590), OpenCV's medium preset."""
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return lambda first, second: engine.calc(first, second, None)


def tvl1() -> FlowMethod:
    """Dual TV-L1 (Zach et al., DAGM 2007), OpenCV's default parameters."""
    engine = cv2.optflow.DualTVL1OpticalFlow.create()
    return lambda first, second: engine.calc(first, second, None)


def farneback() -> FlowMethod:
    """Polynomial expansion (Farnebäck, SCIA 2003)."""
    engine = cv2.FarnebackOpticalFlow.create()
    return lambda first, second: engine.calc(first, second, None)


FLOW_METHODS = {"dis": dis, "tvl1": tvl1, "farneback": farneback}


def encode_flow(flow: np.ndarray, bound: float) -> np.ndarray:
    """Displacement in pixels -> uint8, -bound..bound to 0..255, clipped beyond; 0 becomes 128."""
    scaled = (np.clip(flow, -bound, bound) + bound) * (255 / (2 * bound))
    return np.floor(scaled + 0.5).astype(np.uint8)


def decode_flow(image: np.ndarray, bound: float) -> np.ndarray:
    """The displacement, in pixels, that `encode_flow` stored, to its rounding."""
    return image.astype(np.float32) * (2 * bound / 255) - bound
