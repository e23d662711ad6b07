"""The two-pathway networks on SlowFast: plain, BERT over both paths (early), a BERT each (late)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.archs import ArchSpec
from models.backbones.slowfast import (
    FAST_REDUCED,
    FAST_WIDTH,
    LAST_FAST_BLOCK,
    LAST_SLOW_BLOCK,
    SLOW_REDUCED,
    SLOW_WIDTH,
    Pathways,
    SlowFast,
    fast_reduction_block,
    slow_reduction_block,
)
from models.bert import BERT
from models.late_temporal import VideoNet, action_classifier

SLOW_TOKENS, FAST_TOKENS = 8, 32
# Path -> the backbone's block that FRMB replaces, and what reduces the path.
REDUCTIONS = {
    "slow": (LAST_SLOW_BLOCK, slow_reduction_block),
    "fast": (LAST_FAST_BLOCK, fast_reduction_block),
}


def _spatial_mean(features: Tensor) -> Tensor:
    return features.mean(dim=(3, 4)).transpose(1, 2)  # (N, D, T, h, w) -> (N, T, D)


class TwoPathwayNet(VideoNet):
    """A network on SlowFast, registered as `model`."""

    def backbone_parts(self) -> list[nn.Module]:
        return [part for name, part in self.model.named_children() if name != "head"]

    def encoder_parts(self) -> list[str]:
        return [f"model.{name}" for name, _ in self.model.named_children() if name != "head"]


class TwoPathwayAverageNet(TwoPathwayNet):
    """Both paths averaged over space and time, slow first."""

    def __init__(self, spec: ArchSpec, num_classes: int):
        super().__init__()
        self.spec = spec
        self.model = SlowFast(spec.input.channels, num_classes)
        self.dropout = nn.Dropout(spec.dropout)
        # The classifier is PySlowFast's own projection; files hold it under both names.
        self.fc_action = action_classifier(SLOW_WIDTH + FAST_WIDTH, num_classes)
        self.model.head.projection = self.fc_action

    def replaced_blocks(self) -> list[str]:
        return ["model.head"]

    def encode(self, clips: Tensor) -> Tensor:
        """(N, 8, 2304): the fast path is averaged to the slow path's 8 tokens."""
        self.spec.check_clips(clips.shape)
        return _join(*self.model(clips))

    def classify_tokens(self, tokens: Tensor) -> Tensor:
        return self.fc_action(self.dropout(tokens.mean(dim=1)))


class TwoPathwayBertNet(TwoPathwayNet):
    """Reduction of the pathways that `reduced` names; the base of early and late fusion."""

    reduced: dict[str, str]  # path -> name that the reduction block is saved under

    def __init__(self, spec: ArchSpec, num_classes: int):
        super().__init__()
        self.spec = spec
        self.model = SlowFast(spec.input.channels)
        self.model.head.requires_grad_(False)  # kept for its keys alone, nothing passes it
        class_width = self.add_bert()
        for path, name in self.reduced.items():
            last_block, reduction_block = REDUCTIONS[path]
            block = reduction_block()
            self.add_module(name, block)
            if spec.reduction == "FRMB":  # saved under both names, as in the reference
                self.model.set_submodule(last_block, block)
        self.dropout = nn.Dropout(spec.dropout)
        self.fc_action = action_classifier(class_width, num_classes)

    def replaced_blocks(self) -> list[str]:
        blocks = ["model.head"]
        if self.spec.reduction == "FRMB":
            blocks += [f"model.{REDUCTIONS[path][0]}" for path in self.reduced]
        return blocks

    def encoder_parts(self) -> list[str]:
        return [*super().encoder_parts(), *self.reduced.values()]

    def add_bert(self) -> int:
        """Registers the transformers and returns the width of the class vector."""
        raise NotImplementedError

    def pathways(self, clips: Tensor) -> Pathways:
        """Clips -> slow and fast features, reduced where the network reduces them."""
        self.spec.check_clips(clips.shape)
        slow, fast = self.model(clips)
        if self.spec.reduction == "FRAB":
            slow = self.get_submodule(self.reduced["slow"])(slow)
            if "fast" in self.reduced:
                fast = self.get_submodule(self.reduced["fast"])(fast)
        return slow, fast


class EarlyBertNet(TwoPathwayBertNet):
    """Both paths reduced and joined to 8 tokens of 640, one BERT."""

    encodes = "early"
    reduced = {"slow": "mapper_slow", "fast": "mapper_fast"}

    def add_bert(self) -> int:
        width = SLOW_REDUCED + FAST_REDUCED
        self.bert = BERT(width, SLOW_TOKENS)
        return width

    def encode(self, clips: Tensor) -> Tensor:
        """(N, 8, 640)."""
        return _join(*self.pathways(clips))

    def classify_tokens(self, tokens: Tensor) -> Tensor:
        return self.fc_action(self.dropout(self.bert(tokens)))

    @torch.no_grad()
    def attention(self, clips: Tensor) -> Tensor:
        return self.bert.attention_weights(self.forward_tokens(clips))


class LateBertNet(TwoPathwayBertNet):
    """The slow path reduced, a BERT for each path, class vectors joined slow first."""

    encodes = "late"
    reduced = {"slow": "mapper"}

    def add_bert(self) -> int:
        self.bert_fast = BERT(FAST_WIDTH, FAST_TOKENS)
        self.bert_slow = BERT(SLOW_REDUCED, SLOW_TOKENS)
        return SLOW_REDUCED + FAST_WIDTH

    def encode(self, clips: Tensor) -> Tensor:
        """Both paths' tokens in one row, (N, 8 * 512 + 32 * 256)."""
        slow, fast = self.pathways(clips)
        return torch.cat([_spatial_mean(slow).flatten(1), _spatial_mean(fast).flatten(1)], dim=1)

    def tokens(self, encoded: Tensor) -> dict[str, Tensor]:
        """{"slow": (N, 8, 512), "fast": (N, 32, 256)}."""
        slow, fast = encoded.split([SLOW_TOKENS * SLOW_REDUCED, FAST_TOKENS * FAST_WIDTH], dim=1)
        return {
            "slow": slow.unflatten(1, (SLOW_TOKENS, SLOW_REDUCED)),
            "fast": fast.unflatten(1, (FAST_TOKENS, FAST_WIDTH)),
        }

    def classify_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        vectors = [self.bert_slow(tokens["slow"]), self.bert_fast(tokens["fast"])]
        return self.fc_action(self.dropout(torch.cat(vectors, dim=1)))

    @torch.no_grad()
    def attention(self, clips: Tensor) -> dict[str, Tensor]:
        tokens = self.forward_tokens(clips)
        return {
            "slow": self.bert_slow.attention_weights(tokens["slow"]),
            "fast": self.bert_fast.attention_weights(tokens["fast"]),
        }


def _join(slow: Tensor, fast: Tensor) -> Tensor:
    """Slow and fast features -> 8 tokens, channels side by side, slow first."""
    pooled = [_spatial_mean(F.adaptive_avg_pool3d(x, (SLOW_TOKENS, 1, 1))) for x in (slow, fast)]
    return torch.cat(pooled, dim=2)
