"""The two-pathway networks on SlowFast: plain, BERT over both paths (early), a BERT each (late)."""

import math

import torch
from torch import Tensor, nn

from models.archs import ArchSpec
from models.backbones import BACKBONES
from models.backbones.base import Pathway
from models.backbones.slowfast import Pathways, SlowFast
from models.bert import BERT
from models.late_temporal import VideoNet, action_classifier

SLOW, FAST = BACKBONES["slowfast"].pathways
SLOW_TOKENS, FAST_TOKENS = (
    BACKBONES["slowfast"].only_frames // path.time_stride for path in (SLOW, FAST)
)
# The maps in front of s5, (channels, T, h, w).
SLOW_MAPS, FAST_MAPS = (1280, 8, 14, 14), (128, 32, 14, 14)


class TwoPathwayNet(VideoNet):
    """A network on SlowFast, registered as `model`; the classes below fill in `add_head`."""

    reduced: dict[str, Pathway] = {}  # name of the saved block -> what it reduces, slow first

    def __init__(self, spec: ArchSpec, num_classes: int):
        super().__init__()
        self.spec = spec
        # PySlowFast's head: replaced in the plain network, else kept for its keys alone
        self.model = SlowFast(spec.input.channels, 400 if self.reduced else num_classes)
        self.model.head.requires_grad_(False)
        class_width = self.add_head()
        for name, path in self.reduced.items():
            block = path.reduction_block(path.last_block_in)
            self.add_module(name, block)
            if spec.reduction == "FRMB":  # saved under both names, as in the reference
                self.model.set_submodule(path.last_block, block)
        self.dropout = nn.Dropout(spec.dropout)
        self.fc_action = action_classifier(class_width, num_classes)

    def add_head(self) -> int:
        """Registers the transformers and returns the width of the class vector."""
        raise NotImplementedError

    def backbone_parts(self) -> list[nn.Module]:
        return [part for name, part in self.model.named_children() if name != "head"]

    def encoder_parts(self) -> list[str]:
        parts = [f"model.{name}" for name, _ in self.model.named_children() if name != "head"]
        if stage := self.starts_at or self.ends_at:
            return parts[: self.first_part(stage)]
        return [*parts, *self.reduced]

    def replaced_blocks(self) -> list[str]:
        blocks = ["model.head"]
        if self.spec.reduction == "FRMB":
            blocks += [f"model.{path.last_block}" for path in self.reduced.values()]
        return blocks

    def pathways(self, inputs: Tensor) -> Pathways:
        """Clips, or the maps in front of s5 in one row -> slow and fast features, reduced where
        the network reduces them."""
        if self.starts_at:
            maps = inputs.tensor_split([math.prod(SLOW_MAPS)], dim=1)
            shapes = (SLOW_MAPS, FAST_MAPS)
            features = list(
                self.model.s5(
                    [x.unflatten(1, shape) for x, shape in zip(maps, shapes, strict=True)]
                )
            )
        else:
            self.spec.check_clips(inputs.shape)
            features = list(self.model(inputs))
        if self.spec.reduction == "FRAB":
            for path, name in enumerate(self.reduced):
                features[path] = self.get_submodule(name)(features[path])
        return features[0], features[1]

    def encode(self, inputs: Tensor) -> Tensor:
        if self.ends_at:
            self.spec.check_clips(inputs.shape)
            return torch.cat([x.flatten(1) for x in self.model.below_s5(inputs)], dim=1)
        return self.join(self.pathways(inputs))

    def join(self, pathways: Pathways) -> Tensor:
        """(N, 8, slow + fast channels): the fast path is averaged to the slow path's 8 tokens."""
        spans = (x.unflatten(2, (SLOW_TOKENS, -1)) for x in pathways)  # (N, C, 8, T/8, h, w)
        return torch.cat([x.mean(dim=(3, 4, 5)).transpose(1, 2) for x in spans], dim=2)


class TwoPathwayAverageNet(TwoPathwayNet):
    """Both paths averaged over space and time, slow first."""

    def __init__(self, spec: ArchSpec, num_classes: int):
        super().__init__(spec, num_classes)
        # The classifier is PySlowFast's own projection; files hold it under both names.
        self.model.head.projection = self.fc_action

    def add_head(self) -> int:
        return SLOW.width + FAST.width

    def classify_tokens(self, tokens: Tensor) -> Tensor:
        return self.fc_action(self.dropout(tokens.mean(dim=1)))


class EarlyBertNet(TwoPathwayNet):
    """Both paths reduced and joined to 8 tokens of 640, one BERT."""

    encodes = "early"
    reduced = {"mapper_slow": SLOW, "mapper_fast": FAST}

    def add_head(self) -> int:
        width = SLOW.reduced_width + FAST.reduced_width
        self.bert = BERT(width, SLOW_TOKENS)
        return width

    def classify_tokens(self, tokens: Tensor) -> Tensor:
        return self.fc_action(self.dropout(self.bert(tokens)))

    def token_attention(self, tokens: Tensor) -> Tensor:
        return self.bert.attention_weights(tokens)


class LateBertNet(TwoPathwayNet):
    """The slow path reduced, a BERT for each path, class vectors joined slow first."""

    encodes = "late"
    reduced = {"mapper": SLOW}

    def add_head(self) -> int:
        self.bert_fast = BERT(FAST.width, FAST_TOKENS)
        self.bert_slow = BERT(SLOW.reduced_width, SLOW_TOKENS)
        return SLOW.reduced_width + FAST.width

    def join(self, pathways: Pathways) -> Tensor:
        """Both paths' tokens in one row, (N, 8 * 512 + 32 * 256)."""
        return torch.cat([self.spatial_pool(x).flatten(1) for x in pathways], dim=1)

    def tokens(self, encoded: Tensor) -> dict[str, Tensor]:
        """{"slow": (N, 8, 512), "fast": (N, 32, 256)}."""
        slow, fast = encoded.tensor_split([SLOW_TOKENS * SLOW.reduced_width], dim=1)
        return {
            "slow": slow.unflatten(1, (SLOW_TOKENS, SLOW.reduced_width)),
            "fast": fast.unflatten(1, (FAST_TOKENS, FAST.width)),
        }

    def classify_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        vectors = [self.bert_slow(tokens["slow"]), self.bert_fast(tokens["fast"])]
        return self.fc_action(self.dropout(torch.cat(vectors, dim=1)))

    def token_attention(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        berts = {"slow": self.bert_slow, "fast": self.bert_fast}
        return {path: bert.attention_weights(tokens[path]) for path, bert in berts.items()}
