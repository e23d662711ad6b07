"""The two-pathway networks on SlowFast: plain, BERT over both paths (early), a BERT each (late)."""

import torch
import torch.nn.functional as F
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
        self.fc_action = action_classifier(SLOW.width + FAST.width, num_classes)
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
    """Reduction of the pathways in `reduced`; the base of early and late fusion."""

    reduced: dict[str, Pathway]  # name of the saved block -> what it reduces, slow first

    def __init__(self, spec: ArchSpec, num_classes: int):
        super().__init__()
        self.spec = spec
        self.model = SlowFast(spec.input.channels)
        self.model.head.requires_grad_(False)  # kept for its keys alone, nothing passes it
        class_width = self.add_bert()
        for name, path in self.reduced.items():
            block = path.reduction_block(path.last_block_in)
            self.add_module(name, block)
            if spec.reduction == "FRMB":  # saved under both names, as in the reference
                self.model.set_submodule(path.last_block, block)
        self.dropout = nn.Dropout(spec.dropout)
        self.fc_action = action_classifier(class_width, num_classes)

    def replaced_blocks(self) -> list[str]:
        blocks = ["model.head"]
        if self.spec.reduction == "FRMB":
            blocks += [f"model.{path.last_block}" for path in self.reduced.values()]
        return blocks

    def encoder_parts(self) -> list[str]:
        return [*super().encoder_parts(), *self.reduced]

    def add_bert(self) -> int:
        """Registers the transformers and returns the width of the class vector."""
        raise NotImplementedError

    def pathways(self, clips: Tensor) -> Pathways:
        """Clips -> slow and fast features, reduced where the network reduces them."""
        self.spec.check_clips(clips.shape)
        features = list(self.model(clips))
        if self.spec.reduction == "FRAB":
            for path, name in enumerate(self.reduced):
                features[path] = self.get_submodule(name)(features[path])
        return features[0], features[1]


class EarlyBertNet(TwoPathwayBertNet):
    """Both paths reduced and joined to 8 tokens of 640, one BERT."""

    encodes = "early"
    reduced = {"mapper_slow": SLOW, "mapper_fast": FAST}

    def add_bert(self) -> int:
        width = SLOW.reduced_width + FAST.reduced_width
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
    reduced = {"mapper": SLOW}

    def add_bert(self) -> int:
        self.bert_fast = BERT(FAST.width, FAST_TOKENS)
        self.bert_slow = BERT(SLOW.reduced_width, SLOW_TOKENS)
        return SLOW.reduced_width + FAST.width

    def encode(self, clips: Tensor) -> Tensor:
        """Both paths' tokens in one row, (N, 8 * 512 + 32 * 256)."""
        slow, fast = self.pathways(clips)
        return torch.cat([_spatial_mean(slow).flatten(1), _spatial_mean(fast).flatten(1)], dim=1)

    def tokens(self, encoded: Tensor) -> dict[str, Tensor]:
        """{"slow": (N, 8, 512), "fast": (N, 32, 256)}."""
        slow, fast = encoded.split(
            [SLOW_TOKENS * SLOW.reduced_width, FAST_TOKENS * FAST.width], dim=1
        )
        return {
            "slow": slow.unflatten(1, (SLOW_TOKENS, SLOW.reduced_width)),
            "fast": fast.unflatten(1, (FAST_TOKENS, FAST.width)),
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
