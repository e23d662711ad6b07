"""THE table of architectures: one row each; what follows from a backbone is in the backbone's row.

A name reads `<modality>_<backbone><frames>f<depth>[_<head>][_<FRAB|FRMB>][_<early|late>]`:
FRAB reduces the features with an additional block, FRMB with a modified last block.
`models/names.py` composes what such a name says without a row.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from models.backbones import BACKBONES
from models.backbones.base import InputSpec, collect


class ArchError(ValueError):
    """An unknown architecture, or clips that an architecture does not take."""


@dataclass(frozen=True)
class ArchSpec:
    """One architecture.

    Attributes:
        name: the published name.
        modality: "rgb" or "flow".
        backbone: a key of `models.backbones.BACKBONES`.
        frames: length of a clip.
        head: a key of `models.NETWORKS`: how tokens become a class vector.
        reduction: None, "FRAB" or "FRMB".
        hidden: units of the LSTM or of the linear layer after concatenated tokens.
        dropout: probability before `fc_action`.
        layers, heads, class_token, zero_start: of a single-pathway BERT head, as in
            `models.bert.BERT`.
        streams: whose tokens the head sees, one stream's after the other's: 2 from an RGB and a
            flow token cache that are joined. No name says so, and such a network takes no clips.
    """

    name: str
    modality: str
    backbone: str
    frames: int
    head: str
    reduction: str | None = None
    hidden: int = 0
    dropout: float = 0.8
    layers: int = 1
    heads: int = 8
    class_token: bool = True
    zero_start: bool = False
    streams: int = 1

    @property
    def input(self) -> InputSpec:
        return BACKBONES[self.backbone].inputs[self.modality]

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of one clip."""
        return self.input.channels, self.frames, self.input.crop, self.input.crop

    def describe_input(self) -> dict:
        """What its clips are, as plain values, to travel with the weights."""
        fields = asdict(self.input) | {"frames": self.frames, "modality": self.modality}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    def check_clips(self, shape: Sequence[int]) -> None:
        """Raises ArchError unless `shape` is (N, C, T, H, W) of this architecture's clips."""
        if self.streams > 1:
            raise ArchError(f"{self.name} on {self.streams} streams takes joined tokens, no clips")
        if len(shape) != 5 or tuple(shape[1:]) != self.clip_shape:
            wanted = ", ".join(map(str, self.clip_shape))
            raise ArchError(
                f"{self.name} takes clips (N, C, T, H, W) = (N, {wanted}): {self.modality} with "
                f"{self.input.channels} channels, {self.frames} frames, "
                f"{self.input.crop}x{self.input.crop} pixels; got {tuple(shape)}"
            )


# fmt: off
_ROWS = (
    #        name                                        modality backbone     frames  head
    ArchSpec("rgb_resneXt3D64f101",                        "rgb",  "resneXt3D", 64, "average"),
    ArchSpec("flow_resneXt3D64f101",                       "flow", "resneXt3D", 64, "average", dropout=0.7),
    ArchSpec("rgb_resneXt3D64f101_adamw",                  "rgb",  "resneXt3D", 64, "average"),
    ArchSpec("rgb_resneXt3D64f101_FRMB_adamw",             "rgb",  "resneXt3D", 64, "average", "FRMB"),
    ArchSpec("rgb_resneXt3D64f101_bert10_FRAB",            "rgb",  "resneXt3D", 64, "bert10", "FRAB"),
    ArchSpec("rgb_resneXt3D64f101_bert10_FRMB",            "rgb",  "resneXt3D", 64, "bert10", "FRMB"),
    ArchSpec("flow_resneXt3D64f101_bert10_FRAB",           "flow", "resneXt3D", 64, "bert10", "FRAB"),
    ArchSpec("flow_resneXt3D64f101_bert10_FRMB",           "flow", "resneXt3D", 64, "bert10", "FRMB"),
    ArchSpec("rgb_resneXt3D64f101_FRMB_lstm",              "rgb",  "resneXt3D", 64, "lstm", "FRMB", 450),
    ArchSpec("rgb_resneXt3D64f101_concatenation",          "rgb",  "resneXt3D", 64, "concatenation", "FRMB", 1550),
    ArchSpec("rgb_resneXt3D64f101_FRMB_NLB_concatenation", "rgb",  "resneXt3D", 64, "nlb_concatenation", "FRMB", 1000),
    ArchSpec("rgb_slowfast64f_50",                         "rgb",  "slowfast",  64, "two_pathway_average"),
    ArchSpec("rgb_slowfast64f_50_bert10_FRAB_early",       "rgb",  "slowfast",  64, "two_pathway_bert_early", "FRAB"),
    ArchSpec("rgb_slowfast64f_50_bert10_FRMB_early",       "rgb",  "slowfast",  64, "two_pathway_bert_early", "FRMB"),
    ArchSpec("rgb_slowfast64f_50_bert10_FRAB_late",        "rgb",  "slowfast",  64, "two_pathway_bert_late", "FRAB"),
    ArchSpec("rgb_slowfast64f_50_bert10_FRMB_late",        "rgb",  "slowfast",  64, "two_pathway_bert_late", "FRMB"),
    ArchSpec("rgb_I3D64f",                                 "rgb",  "I3D",       64, "average"),
    ArchSpec("flow_I3D64f",                                "flow", "I3D",       64, "average", dropout=0.7),
    ArchSpec("rgb_I3D64f_bert2",                           "rgb",  "I3D",       64, "bert2"),
    ArchSpec("rgb_I3D64f_bert2_FRAB",                      "rgb",  "I3D",       64, "bert2", "FRAB"),
    ArchSpec("rgb_I3D64f_bert2_FRMB",                      "rgb",  "I3D",       64, "bert2", "FRMB"),
    ArchSpec("flow_I3D64f_bert2",                          "flow", "I3D",       64, "bert2"),
    ArchSpec("flow_I3D64f_bert2_FRAB",                     "flow", "I3D",       64, "bert2", "FRAB"),
    ArchSpec("flow_I3D64f_bert2_FRMB",                     "flow", "I3D",       64, "bert2", "FRMB"),
    ArchSpec("rgb_r2plus1d_32f_34",                        "rgb",  "r2plus1d",  32, "average"),
    ArchSpec("rgb_r2plus1d_32f_34_bert10",                 "rgb",  "r2plus1d",  32, "bert10"),
    ArchSpec("rgb_r2plus1d_64f_34_bert10",                 "rgb",  "r2plus1d",  64, "bert10"),
    # torchvision's networks, whose Kinetics weights can be fetched: each with both heads.
    *(
        ArchSpec(f"{modality}_{name}{suffix}", modality, backbone, frames, head)
        for modality in ("rgb", "flow")
        for name, backbone, frames in (
            ("r2plus1d_16f_18", "r2plus1d_18", 16),
            ("r3d_16f_18",      "r3d_18",      16),
            ("s3d64f",          "s3d",         64),
            ("swin3d_32f_t",    "swin3d_t",    32),
            ("mvit_v2_16f_s",   "mvit_v2_s",   16),
        )
        for suffix, head in (("", "average"), ("_bert10", "bert10"))
    ),
    # Small ones for trying, teaching and tests.
    ArchSpec("rgb_tiny3D16f",                              "rgb",  "tiny3D",    16, "average", dropout=0.2),
    ArchSpec("flow_tiny3D16f",                             "flow", "tiny3D",    16, "average", dropout=0.2),
    ArchSpec("rgb_tiny3D16f_bert10_FRMB",                  "rgb",  "tiny3D",    16, "bert10", "FRMB", dropout=0.2),
    ArchSpec("flow_tiny3D16f_bert10_FRMB",                 "flow", "tiny3D",    16, "bert10", "FRMB", dropout=0.2),
    ArchSpec("rgb_tiny3D16f_FRMB_lstm",                    "rgb",  "tiny3D",    16, "lstm", "FRMB", 64, dropout=0.2),
    ArchSpec("rgb_tiny3D16f_concatenation",                "rgb",  "tiny3D",    16, "concatenation", "FRMB", 128, dropout=0.2),
    ArchSpec("rgb_tiny3D16f_FRMB_NLB_concatenation",       "rgb",  "tiny3D",    16, "nlb_concatenation", "FRMB", 128, dropout=0.2),
)
# fmt: on


ARCHS = collect(_ROWS, "name")


def list_archs() -> list[str]:
    """Every architecture's name, in the table's order."""
    return list(ARCHS)
