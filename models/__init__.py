"""The networks: `create_model`, and the heads that the table of architectures names."""

from models.archs import ArchError, ArchSpec, list_archs
from models.backbones.base import InputSpec
from models.heads import (
    AverageNet,
    Bert2Net,
    Bert10Net,
    ConcatenationNet,
    FlatNet,
    LstmNet,
    NonLocalConcatenationNet,
)
from models.late_temporal import VideoNet
from models.names import get_arch
from models.slowfast_net import EarlyBertNet, LateBertNet, TwoPathwayAverageNet

__all__ = [
    "ArchError",
    "ArchSpec",
    "InputSpec",
    "VideoNet",
    "create_model",
    "get_arch",
    "list_archs",
]

NETWORKS = {
    "average": AverageNet,
    "bert10": Bert10Net,
    "bert2": Bert2Net,
    "lstm": LstmNet,
    "concatenation": ConcatenationNet,
    "flat": FlatNet,
    "nlb_concatenation": NonLocalConcatenationNet,
    "two_pathway_average": TwoPathwayAverageNet,
    "two_pathway_bert_early": EarlyBertNet,
    "two_pathway_bert_late": LateBertNet,
}


def create_model(name: str, num_classes: int) -> VideoNet:
    """A new network of the architecture `name`, on the CPU, with its initial weights.

    Raises ArchError for an unknown name (listing the closest) or a bad number of classes.
    """
    spec = get_arch(name)
    if num_classes < 1:
        raise ArchError(f"num_classes must be at least 1, not {num_classes}")
    return NETWORKS[spec.head](spec, num_classes)
