"""torch.hub's entry points: every row of the table of architectures, and a predictor.

    network = torch.hub.load(DIR, "rgb_I3D64f_bert2", source="local", num_classes=51)
    predictor = torch.hub.load(DIR, "predictor", source="local", path=RUN)

DIR is the folder of this file.
"""

from collections.abc import Callable as _Callable
from pathlib import Path as _Path

# Whatever has no underscore here is an entry point.
import engine.applying.predictor as _applying
import engine.weights.choose as _weights
import models as _models
from engine.files import ROOT as _ROOT

dependencies = ["torch", "torchvision", "numpy", "cv2", "av", "msgspec", "safetensors"]


def predictor(path: str, path_flow: str | None = None, **options) -> _applying.Predictor:
    """A trained network, or an RGB and a flow network fused, to apply to frames of videos.

    Args:
        path, path_flow: a run's folder, a shared folder, a checkpoint or published weights.
        options: of `engine.applying.predictor.load_predictor`: device, clips, ten_crop, ...

    `predictor.predict(frames)` takes uint8 frames (T, H, W, 3), RGB, and gives probabilities.
    """
    return _applying.load_predictor(_Path(path), path_flow and _Path(path_flow), **options)


def _entry_point(name: str) -> _Callable[..., _models.VideoNet]:
    def create(num_classes: int, weights: str = _weights.NO_WEIGHTS) -> _models.VideoNet:
        network = _models.create_model(name, num_classes)
        _weights.start_from_weights(network, str(weights), _ROOT / "weights")
        return network.eval()

    create.__name__ = name
    create.__doc__ = f"""The network {name}, in evaluation mode.

    Args:
        num_classes: that it tells apart.
        weights: what it starts from, as the flag --weights says: none, auto (the file in weights/
            that fits), a source's name, or a file or shared folder.
    """
    return create


globals().update({name: _entry_point(name) for name in _models.list_archs()})
