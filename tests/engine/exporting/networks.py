"""Networks whose answers tell clips apart, so that agreement of answers means something."""

import torch
from torch import nn

from datasets.preparation import Preparation
from engine.applying.networks import TrainedNetwork
from engine.exporting.clips import made_clips
from engine.exporting.deployed import Deployed
from models import create_model
from video_transforms import INVERTED, PLAIN


def trained(arch: str, classes: int = 5) -> TrainedNetwork:
    """A new network whose batch norms fit the first two made clips, and whose classifier is centred
    and stretched for them: new weights alone may give all clips nearly the same features."""
    torch.manual_seed(0)
    model = create_model(arch, classes).eval()
    flip = INVERTED if model.spec.modality == "flow" else PLAIN
    width, height = size = model.spec.input.resize
    logits: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, inputs, output: logits.append(output))
    clips = torch.from_numpy(made_clips(model.spec, size, 2))
    deployed = Deployed(model, [size], False, flip)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    for norm in norms:
        norm.train().momentum = 1
    with torch.no_grad():
        if norms:
            deployed(clips)
        deployed.eval()(clips)
    hook.remove()
    with torch.no_grad():
        first, second = logits[-1]
        stretch = 0.5 / (first - second).abs().max()  # more would stretch rounding, too
        model.fc_action.weight.mul_(stretch)
        model.fc_action.bias.copy_(-stretch * (first + second) / 2)
    names = tuple(f"class {label}" for label in range(classes))
    made = Preparation(width=width, height=height, flow="dis", bound=15.0)
    return TrainedNetwork("x", model, names, flip, 25.0, made, True)
