"""Small trained networks and videos to apply them to."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from engine.checkpoint import make_checkpoint
from engine.data import normalization
from models import create_model, get_arch

CLASSES = ("left", "middle", "right")


def save_network(path: Path, arch: str = "rgb_tiny3D16f_bert10", **metadata) -> Path:
    """A checkpoint of a network with random weights, as a training writes it."""
    torch.manual_seed(len(arch))
    model = create_model(arch, len(CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    content = make_checkpoint(get_arch(arch), model, optimizer, {}, 1, 50.0, 1.0, metadata)
    known = {"class_names": list(CLASSES), "mirror": "plain"}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(known | content, path)
    return path


def save_sure_network(path: Path, **metadata) -> Path:
    """One that sees the red, green and blue pictures of `coloured` as its three classes."""
    save_network(path, "rgb_tiny3D16f", **metadata)
    content = torch.load(path, weights_only=True)
    model = create_model("rgb_tiny3D16f", len(CLASSES))
    model.load_state_dict(content["state_dict"])
    model.eval()
    side, frames = model.spec.input.crop, model.spec.frames
    clips = np.stack([coloured([(label, frames)], (side, side)) for label in range(3)])
    with torch.no_grad():
        seen = model.forward_tokens(normalization(model.spec)(torch.from_numpy(clips))).mean(dim=1)
        centred = seen - seen.mean(dim=0)
        model.fc_action.weight.copy_(10 * torch.linalg.pinv(centred).T)
        model.fc_action.bias.copy_(-model.fc_action.weight @ seen.mean(dim=0))
    torch.save(content | {"state_dict": model.state_dict()}, path)
    return path


def coloured(plan: list[tuple[int, int]], size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Pictures: of each (class, number) so many red, green or blue ones, RGB."""
    pictures = []
    for label, number in plan:
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        picture[..., label] = 255
        pictures += [picture] * number
    return pictures


def noisy(count: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> list[np.ndarray]:
    """Pictures that differ from each other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, 6, 8, 3), np.uint8)
    return [np.kron(p, np.ones((size[1] // 6, size[0] // 8, 1), np.uint8)) for p in coarse]


def write_video(
    path: Path, pictures: list[np.ndarray], fps: float = 25, times: list[float] | None = None
) -> Path:
    """An H.264 file; `times`: seconds of each picture, for a changing frame rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if times:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
