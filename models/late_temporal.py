"""The common shape: features -> (reduce) -> spatial pool -> temporal head -> fc_action."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.archs import ArchError, ArchSpec
from models.backbones import BACKBONES

Reorder = Callable[[Tensor | dict[str, Tensor]], Tensor | dict[str, Tensor]]


class VideoNet(nn.Module):
    """What every architecture offers, whatever its backbone and head."""

    spec: ArchSpec
    encodes = ""  # what `encode` gives, where it is not the tokens that most heads share
    from_encoded = False  # whether `forward` starts from what `encode` gives, as from a token cache
    # A stage of the backbone that `encode` starts or ends in front of, and hands maps over there.
    starts_at: str | None = None
    ends_at: str | None = None

    def forward(self, inputs: Tensor, reorder: Reorder | None = None) -> Tensor:
        """Normalised clips (N, C, T, H, W), or with `from_encoded` what `encode` makes of them
        -> logits (N, num_classes); `reorder` as in `classify`."""
        return self.classify(inputs if self.from_encoded else self.encode(inputs), reorder)

    def encode(self, inputs: Tensor) -> Tensor:
        """Clips -> what everything below the temporal head makes of them, one tensor (N, ...).

        With `ends_at` it gives the maps in front of that stage, with `starts_at` it takes them.
        """
        raise NotImplementedError

    def first_part(self, stage: str) -> int:
        """The place in `backbone_parts` of a stage's first; raises ArchError for a stage that the
        backbone's row does not name."""
        stages = BACKBONES[self.spec.backbone].stages
        if stage not in stages:
            known = ", ".join(stages) or "none"
            raise ArchError(
                f"{self.spec.name} has no stage '{stage}' to cut at; there are: {known}"
            )
        return stages[stage]

    def classify(self, encoded: Tensor, reorder: Reorder | None = None) -> Tensor:
        """What `encode` gives -> logits (N, num_classes); `reorder` may permute the tokens."""
        tokens = self.tokens(encoded)
        return self.classify_tokens(tokens if reorder is None else reorder(tokens))

    def tokens(self, encoded: Tensor) -> Tensor | dict[str, Tensor]:
        """What `encode` gives -> what the temporal head sees, (N, T', D) or that of each path."""
        return encoded

    def classify_tokens(self, tokens: Tensor | dict[str, Tensor]) -> Tensor:
        """What `tokens` gives -> logits (N, num_classes)."""
        raise NotImplementedError

    def forward_tokens(self, inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """What `forward` takes -> what the temporal head sees."""
        return self.tokens(inputs if self.from_encoded else self.encode(inputs))

    @staticmethod
    def spatial_pool(features: Tensor) -> Tensor:
        """(N, D, T', h, w) -> tokens (N, T', D)."""
        return features.mean(dim=(3, 4)).transpose(1, 2)

    def encoder_parts(self) -> list[str]:
        """Names of the modules below: the backbone and what reduces it, or what of the backbone is
        in front of `starts_at` or `ends_at`."""
        raise NotImplementedError

    def backbone_parts(self) -> list[nn.Module]:
        """The backbone's modules, in the order that a clip passes them."""
        raise NotImplementedError

    def replaced_blocks(self) -> list[str]:
        """Names of the backbone's blocks that are not the published backbone's."""
        return []

    def backbone_depth(self) -> dict[str, int]:
        """Parameter name -> depth in the backbone, 0 at its input; the head's are not in it.

        A part with a weight of more than one axis begins the next depth, so that a convolution and
        its norm have the same. Blocks that replace published ones belong to the head.
        """
        depth_of, depth = {}, -1
        for part in self.backbone_parts():
            depth += any(parameter.ndim > 1 for parameter in part.parameters())
            depth_of |= {id(parameter): max(depth, 0) for parameter in part.parameters()}
        new = tuple(f"{name}." for name in self.replaced_blocks())
        return {
            name: depth_of[id(parameter)]
            for name, parameter in self.named_parameters()
            if id(parameter) in depth_of and not name.startswith(new)
        }

    @torch.no_grad()
    def attention(self, inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """What `forward` takes -> the attention of a BERT head, as `token_attention` gives it."""
        return self.token_attention(self.forward_tokens(inputs))

    def token_attention(self, tokens: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """What `tokens` gives -> a BERT head's attention weights (N, heads, T'+1, T'+1), or those
        of each path; row 0 is the class token's. Raises ArchError for another head."""
        raise ArchError(f"{self.spec.name} has no BERT head, so no attention weights")


def action_classifier(width: int, num_classes: int) -> nn.Linear:
    """`fc_action`: Xavier-uniform weights, bias 0."""
    layer = nn.Linear(width, num_classes)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class LateTemporalNet(VideoNet):
    """A single-pathway network; `models/heads.py` fills in `add_head` and `temporal`.

    A head registers its layers on the network itself (`bert.*`, `lstm.*`, ...), between the
    backbone and `fc_action`: checkpoint keys and the optimizer's order are an interface.
    """

    def __init__(self, spec: ArchSpec, num_classes: int):
        super().__init__()
        backbone = BACKBONES[spec.backbone]
        (pathway,) = backbone.pathways
        self.spec = spec
        self.features = backbone.features(spec.input.channels)
        self.width = pathway.reduced_width if spec.reduction else pathway.width
        self.num_tokens = spec.streams * (spec.frames // pathway.time_stride)
        self.mapper = None
        if spec.reduction == "FRAB":
            self.mapper = pathway.reduction_block(pathway.width)
        elif spec.reduction == "FRMB":
            block = pathway.reduction_block(pathway.last_block_in)
            self.features.set_submodule(pathway.last_block, block)
        self.dropout = nn.Dropout(spec.dropout)
        class_width = self.add_head()
        self.fc_action = action_classifier(class_width, num_classes)

    def backbone_parts(self) -> list[nn.Module]:
        if isinstance(self.features, nn.Sequential):
            return list(self.features)
        lists = (nn.Sequential, nn.ModuleList)  # a transformer's blocks
        parts = (list(m) if isinstance(m, lists) else [m] for m in self.features.children())
        return [part for some in parts for part in some]

    def encoder_parts(self) -> list[str]:
        if stage := self.starts_at or self.ends_at:
            return [f"features.{place}" for place in range(self.first_part(stage))]
        return ["features"] if self.mapper is None else ["features", "mapper"]

    def replaced_blocks(self) -> list[str]:
        if self.spec.reduction != "FRMB":
            return []
        return [f"features.{BACKBONES[self.spec.backbone].pathways[0].last_block}"]

    def add_head(self) -> int:
        """Registers the head's layers and returns the width of its class vector."""
        raise NotImplementedError

    def temporal(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T', D) -> class vector, dropout applied where the head has it."""
        raise NotImplementedError

    def reduced_features(self, inputs: Tensor) -> Tensor:
        """Clips, or the maps in front of `starts_at` -> (N, D, T', h, w)."""
        if self.starts_at:
            features = self.features[self.first_part(self.starts_at) :](inputs)
        else:
            self.spec.check_clips(inputs.shape)
            features = self.features(inputs)
        return features if self.mapper is None else self.mapper(features)

    def maps_below(self, clips: Tensor) -> Tensor:
        """Clips -> the maps in front of `ends_at`, (N, ...)."""
        self.spec.check_clips(clips.shape)
        return self.features[: self.first_part(self.ends_at)](clips)

    def encode(self, inputs: Tensor) -> Tensor:
        """Clips -> tokens (N, T', D)."""
        if self.ends_at:
            return self.maps_below(inputs)
        return self.spatial_pool(self.reduced_features(inputs))

    def classify_tokens(self, tokens: Tensor) -> Tensor:
        return self.fc_action(self.temporal(tokens))
