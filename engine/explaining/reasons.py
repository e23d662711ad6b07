"""Why a network gives a clip its class: attention, occlusion in time, Grad-CAM.

Pure functions of a network in eval mode and a normalised clip (1, C, T, H, W) on its device. What
is explained is the score of one class, the predicted one unless another is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor

from engine import UsageError
from models import ArchError, VideoNet
from models.slowfast_net import TwoPathwayNet

SPANS = 8  # of a clip, that are occluded one after the other
PASSES = SPANS + 3  # of the network, to explain a clip


def _unseen() -> None:
    """What a caller without a progress bar wants to know of each pass."""


@dataclass(frozen=True)
class Explanation:
    """Why a clip has its class.

    Attributes:
        target: the class whose score is explained.
        probabilities: float32 (classes,).
        attention: of the class token to each temporal step, by pathway ("" for a single one),
            float32 (attention heads, T'); with its attention to itself a row sums to 1.
        no_attention: why `attention` is empty, or "".
        spans: int (S, 2), first frame of each span, and the one after its last.
        lost: float32 (S,), nats: log odds of the class that are lost without each span.
        gradcam: float32 (T, H, W), >= 0, in units of the class's logit.
    """

    target: int
    probabilities: np.ndarray
    attention: Mapping[str, np.ndarray]
    no_attention: str
    spans: np.ndarray
    lost: np.ndarray
    gradcam: np.ndarray

    @property
    def probability(self) -> float:
        """Of the class that is explained."""
        return float(self.probabilities[self.target])


def explain_clip(
    network: VideoNet,
    clip: Tensor,
    target: int | None = None,
    tick: Callable[[], object] = _unseen,
) -> Explanation:
    """Everything about one clip (1, C, T, H, W).

    Args:
        target: the class to explain; None: the predicted one.
        tick: called after each of PASSES passes of the network.

    Raises UsageError for a network of a single class and for scores that are not finite.
    """
    with torch.no_grad():
        tokens = network.forward_tokens(clip)
        logits = network.classify_tokens(tokens)[0].float()  # (classes,)
    check_logits(network, logits)
    tick()
    target = int(logits.argmax()) if target is None else target
    attention, no_attention = {}, ""
    try:
        with torch.no_grad():
            attention = class_attention(network, tokens)
    except ArchError as error:
        no_attention = str(error)
    spans = np.linspace(0, clip.shape[2], min(SPANS, clip.shape[2]) + 1).round().astype(int)
    spans = np.stack([spans[:-1], spans[1:]], axis=1)
    lost = occlude_spans(network, clip, target, spans, tick)
    gradcam = grad_cam(network, clip, target)
    tick()
    return Explanation(
        target=target,
        probabilities=logits.softmax(0).numpy(force=True),
        attention={path: own[0].numpy(force=True) for path, own in attention.items()},
        no_attention=no_attention,
        spans=spans,
        lost=lost,
        gradcam=gradcam,
    )


def check_logits(network: VideoNet, logits: Tensor) -> None:
    """Raises UsageError for logits (..., classes) of a single class, or that are not finite."""
    if logits.shape[-1] < 2:
        raise UsageError(f"{network.spec.name} knows a single class; there is nothing to explain")
    if not logits.isfinite().all():
        raise UsageError(f"{network.spec.name} gives scores that are not finite")


def class_attention(network: VideoNet, tokens: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What `network.tokens` gives -> the class token's attention (N, heads, T') by pathway.

    Raises ArchError for a head without BERT, and for BERT without a class token.
    """
    weights = network.token_attention(tokens)
    if not network.spec.class_token:
        raise ArchError(
            f"{network.spec.name} has no class token: its class vector is the mean of all outputs"
        )
    by_path = weights if isinstance(weights, dict) else {"": weights}
    return {path: own[:, :, 0, 1:].float() for path, own in by_path.items()}


def log_odds(logits: Tensor, target: int) -> Tensor:
    """ln(p / (1 - p)) of a class's probability p: logits (N, classes) -> (N,).

    Equal to the class's logit less the logsumexp of all others. It does not saturate: 0.99 and
    0.9999 are as far apart as 0.01 and 0.0001.
    """
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
    return logits[:, target] - others.logsumexp(dim=1)


@torch.no_grad()
def occlude_spans(
    network: VideoNet,
    clip: Tensor,
    target: int,
    spans: np.ndarray,
    tick: Callable[[], object] = _unseen,
) -> np.ndarray:
    """The score lost without each span, float32 (S,).

    lost_s = L(x) - L(x_s), where L is `log_odds` of the class, and x_s is the clip x with each
    frame of span s replaced by the clip's mean frame. Negative: the span speaks against the class.

    After Zeiler and Fergus, arXiv 1311.2901, who occlude parts of a picture.
    """
    mean = clip.mean(dim=2, keepdim=True)
    whole, lost = log_odds(network(clip).float(), target), []
    tick()
    for start, end in spans:
        occluded = clip.clone()
        occluded[:, :, start:end] = mean
        lost.append(whole - log_odds(network(occluded).float(), target))
        tick()
    return torch.cat(lost).numpy(force=True)


def grad_cam(network: VideoNet, clip: Tensor, target: int) -> np.ndarray:
    """Where and when the backbone's last maps speak for a class, float32 (T, H, W), >= 0.

    With the maps A_c(p) of channel c at the P positions p in time and space, and the logit z of
    the class, it is max(0, P * sum_c mean_p(dz/dA_c) * A_c(p)), upsampled trilinearly. Of two
    pathways the maps are added before the maximum. For a network that averages its maps, the mean
    over all positions before the maximum is the class's logit without its bias.

    Grad-CAM: Selvaraju et al., arXiv 1610.02391.
    """
    if isinstance(network, TwoPathwayNet):
        layer = network.model
    else:
        layer = network.features if network.mapper is None else network.mapper
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # an LSTM in eval mode
        maps = LayerGradCam(network, layer).attribute(clip, target=target)  # (N, 1, T', h, w)
    paths = maps if isinstance(maps, tuple) else (maps,)
    upsampled = [
        LayerAttribution.interpolate(
            own.detach().float() * own[0].numel(), tuple(clip.shape[2:]), "trilinear"
        )
        for own in paths
    ]
    return sum(upsampled).clamp(min=0)[0, 0].numpy(force=True)
