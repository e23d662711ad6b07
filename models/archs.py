"""THE table: one row per architecture, one per input; everything else follows from them.

A name reads `<modality>_<backbone><frames>f<depth>[_<head>][_<FRAB|FRMB>][_<early|late>]`:
FRAB reduces the features with an additional block, FRMB with a modified last block.
`models/grammar.py` composes what such a name says without a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class ArchError(ValueError):
    """An unknown architecture, or clips that an architecture does not take."""


@dataclass(frozen=True)
class InputSpec:
    """What a backbone's weights expect of a picture.

    Attributes:
        crop: height and width of the network's input, pixels.
        resize: (width, height) that a frame is resized to before cropping, pixels.
        value_range: largest pixel value: 255 leaves 0..255, 1 divides by 255.
        mean, std: per channel, in units of `value_range`; RGB order, or flow x, y.
    """

    crop: int
    resize: tuple[int, int]
    value_range: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        return len(self.mean)


# Mean and std that torchvision's Kinetics ResNets and the IG-65M weights share, and flow's.
_KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_FLOW = (0.5, 0.5), (0.226, 0.226)

# fmt: off
INPUTS = {
    ("resneXt3D", "rgb"):  InputSpec(112, (170, 128), 255, (114.7748, 107.7354, 99.4750), (1, 1, 1)),
    ("resneXt3D", "flow"): InputSpec(112, (170, 128), 255, (127.5, 127.5), (1, 1)),
    ("slowfast", "rgb"):   InputSpec(224, (340, 256), 1, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    ("I3D", "rgb"):        InputSpec(224, (340, 256), 1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("I3D", "flow"):       InputSpec(224, (340, 256), 1, (0.5, 0.5), (0.5, 0.5)),
    ("r2plus1d", "rgb"):   InputSpec(112, (170, 128), 1, *_KINETICS),
    ("r2plus1d", "flow"):  InputSpec(112, (170, 128), 1, *_FLOW),
    ("tiny3D", "rgb"):     InputSpec(56, (85, 64), 1, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    ("tiny3D", "flow"):    InputSpec(56, (85, 64), 1, (0.5, 0.5), (0.125, 0.125)),
    # torchvision's weights: what their `transforms` say.
    ("r2plus1d_18", "rgb"):  InputSpec(112, (171, 128), 1, *_KINETICS),
    ("r2plus1d_18", "flow"): InputSpec(112, (171, 128), 1, *_FLOW),
    ("r3d_18", "rgb"):       InputSpec(112, (171, 128), 1, *_KINETICS),
    ("r3d_18", "flow"):      InputSpec(112, (171, 128), 1, *_FLOW),
    ("s3d", "rgb"):          InputSpec(224, (256, 256), 1, *_KINETICS),
    ("s3d", "flow"):         InputSpec(224, (256, 256), 1, *_FLOW),
    ("swin3d_t", "rgb"):     InputSpec(224, (340, 256), 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("swin3d_t", "flow"):    InputSpec(224, (340, 256), 1, *_FLOW),
    ("mvit_v2_s", "rgb"):    InputSpec(224, (340, 256), 1, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    ("mvit_v2_s", "flow"):   InputSpec(224, (340, 256), 1, *_FLOW),
}
# fmt: on

# Backbone -> how it stands in a name, `{}` being the clip length.
NAMINGS = {
    "resneXt3D": "resneXt3D{}f101",
    "slowfast": "slowfast{}f_50",
    "I3D": "I3D{}f",
    "r2plus1d": "r2plus1d_{}f_34",
    "tiny3D": "tiny3D{}f",
    "r2plus1d_18": "r2plus1d_{}f_18",
    "r3d_18": "r3d_{}f_18",
    "s3d": "s3d{}f",
    "swin3d_t": "swin3d_{}f_t",
    "mvit_v2_s": "mvit_v2_{}f_s",
}


@dataclass(frozen=True)
class ArchSpec:
    """One architecture.

    Attributes:
        name: the published name.
        modality: "rgb" or "flow".
        backbone: a key of `models.backbones.BACKBONES`, or "slowfast".
        frames: length of a clip.
        head: a key of `models.NETWORKS`: how tokens become a class vector.
        reduction: None, "FRAB" or "FRMB".
        hidden: units of the LSTM or of the linear layer behind concatenated tokens.
        dropout: probability before `fc_action`.
        layers, heads, class_token: of a single-pathway BERT head, as in `models.bert.BERT`.
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

    @property
    def input(self) -> InputSpec:
        return INPUTS[self.backbone, self.modality]

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of one clip."""
        return self.input.channels, self.frames, self.input.crop, self.input.crop

    def check_clips(self, shape: Sequence[int]) -> None:
        """Raises ArchError unless `shape` is (N, C, T, H, W) of this architecture's clips."""
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
    # torchvision's networks, whose Kinetics weights can be had.
    ArchSpec("rgb_r2plus1d_16f_18",                        "rgb",  "r2plus1d_18", 16, "average"),
    ArchSpec("rgb_r2plus1d_16f_18_bert10",                 "rgb",  "r2plus1d_18", 16, "bert10"),
    ArchSpec("rgb_r3d_16f_18",                             "rgb",  "r3d_18",      16, "average"),
    ArchSpec("rgb_r3d_16f_18_bert10",                      "rgb",  "r3d_18",      16, "bert10"),
    ArchSpec("rgb_s3d64f",                                 "rgb",  "s3d",         64, "average"),
    ArchSpec("rgb_s3d64f_bert10",                          "rgb",  "s3d",         64, "bert10"),
    ArchSpec("rgb_swin3d_32f_t",                           "rgb",  "swin3d_t",    32, "average"),
    ArchSpec("rgb_swin3d_32f_t_bert10",                    "rgb",  "swin3d_t",    32, "bert10"),
    ArchSpec("rgb_mvit_v2_16f_s",                          "rgb",  "mvit_v2_s",   16, "average"),
    ArchSpec("rgb_mvit_v2_16f_s_bert10",                   "rgb",  "mvit_v2_s",   16, "bert10"),
    ArchSpec("flow_r2plus1d_16f_18",                       "flow", "r2plus1d_18", 16, "average"),
    ArchSpec("flow_r2plus1d_16f_18_bert10",                "flow", "r2plus1d_18", 16, "bert10"),
    ArchSpec("flow_r3d_16f_18",                            "flow", "r3d_18",      16, "average"),
    ArchSpec("flow_r3d_16f_18_bert10",                     "flow", "r3d_18",      16, "bert10"),
    ArchSpec("flow_s3d64f",                                "flow", "s3d",         64, "average"),
    ArchSpec("flow_s3d64f_bert10",                         "flow", "s3d",         64, "bert10"),
    ArchSpec("flow_swin3d_32f_t",                          "flow", "swin3d_t",    32, "average"),
    ArchSpec("flow_swin3d_32f_t_bert10",                   "flow", "swin3d_t",    32, "bert10"),
    ArchSpec("flow_mvit_v2_16f_s",                         "flow", "mvit_v2_s",   16, "average"),
    ArchSpec("flow_mvit_v2_16f_s_bert10",                  "flow", "mvit_v2_s",   16, "bert10"),
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


def _register(rows: Sequence[ArchSpec]) -> dict[str, ArchSpec]:
    table = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"architecture {row.name} is registered twice")
        table[row.name] = row
    return table


ARCHS = _register(_ROWS)


def list_archs() -> list[str]:
    """Every architecture's name, in the table's order."""
    return list(ARCHS)
