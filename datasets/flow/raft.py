"""RAFT (Teed and Deng, ECCV 2020), torchvision's networks with torchvision's weights."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import optical_flow
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

from datasets.files import DataError

WEIGHTS_FOLDER = Path(__file__).resolve().parents[2] / "weights"
RAFT_NETWORKS = {
    "large": (optical_flow.raft_large, Raft_Large_Weights.C_T_SKHT_V2.url),
    "small": (optical_flow.raft_small, Raft_Small_Weights.C_T_V2.url),
}
STRIDE, MIN_SIDE = 8, 128  # its features are 8 times as coarse, and at least 16 to a side
PAIRS_AT_ONCE = {"cpu": 1, "cuda": 16}


class RAFT:
    """Computes the flow of frame pairs.

    Args:
        size: "large" or "small".
        device: where to compute.
        folder: where a downloaded file of weights may lie; otherwise torch's cache or the network.

    Raises DataError if there are no weights, saying what to fetch and where to put it.
    """

    def __init__(self, size: str, device: str = "cpu", folder: Path = WEIGHTS_FOLDER):
        build, url = RAFT_NETWORKS[size]
        self.device = torch.device(device)
        self.network = build(weights=None)
        path = folder / Path(url).name
        state = read_raft_weights(path, url)
        try:
            self.network.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split()[:40])
            raise DataError(f"{path} does not hold weights of RAFT {size}: {reason}") from None
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """BGR uint8 (N, H, W, 3) twice -> displacement in pixels, float32 (N, 2, H, W)."""
        size = PAIRS_AT_ONCE.get(self.device.type, PAIRS_AT_ONCE["cuda"])
        flows = []
        for start in range(0, len(first), size):
            pair = (self._input(frames[start : start + size]) for frames in (first, second))
            flow = self.network(*pair)[-1][:, :, : first.shape[1], : first.shape[2]]
            flows.append(flow.float().cpu().numpy())
        return np.concatenate(flows)

    def _input(self, frames: np.ndarray) -> Tensor:
        """RGB in -1..1, (N, 3, H, W), its last row and column repeated up to a size RAFT takes."""
        rgb = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1])).to(self.device)
        height, width = frames.shape[1:3]
        below, right = (max(MIN_SIDE, -(-n // STRIDE) * STRIDE) - n for n in (height, width))
        images = rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
        return F.pad(images, (0, right, 0, below), mode="replicate")


def read_raft_weights(path: Path, url: str) -> dict[str, Tensor]:
    """The weights in `path`, or else from torch's cache or the network."""
    try:
        if path.exists():
            return torch.load(path, map_location="cpu", weights_only=True)
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"no weights for RAFT, and they cannot be downloaded ({error}); "
            f"fetch {url} and put it at {path}"
        ) from None
    except Exception as error:  # torch.load raises whatever its format's readers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read RAFT's weights: {reason}; fetch {url} to {path}") from None
