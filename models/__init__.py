"""The networks: `create_model`, and the heads that the table of architectures names."""

from models import heads, slowfast_net
from models.archs import ArchError, ArchSpec, list_archs
from models.late_temporal import VideoNet
from models.names import get_arch

__all__ = ["ArchError", "ArchSpec", "VideoNet", "create_model", "get_arch", "list_archs"]

NETWORKS = {
    "average": heads.AverageNet,
    "bert10": heads.Bert10Net,
    "bert2": heads.Bert2Net,
    "lstm": heads.LstmNet,
    "concatenation": heads.ConcatenationNet,
    "flat": heads.FlatNet,
    "attentive": heads.AttentiveNet,
    "probe": heads.EfficientProbeNet,
    "step": heads.StepNet,
    "nlb_concatenation": heads.NonLocalConcatenationNet,
    "two_pathway_average": slowfast_net.TwoPathwayAverageNet,
    "two_pathway_bert_early": slowfast_net.EarlyBertNet,
    "two_pathway_bert_late": slowfast_net.LateBertNet,
}


def create_model(name: str, num_classes: int) -> VideoNet:
    """A new network of the architecture `name`, on the CPU, with its initial weights.

    Raises ArchError for an unknown name (listing the closest) or a bad number of classes.
    """
    spec = get_arch(name)
    if num_classes < 1:
        raise ArchError(f"num_classes must be at least 1, not {num_classes}")
    return NETWORKS[spec.head](spec, num_classes)
