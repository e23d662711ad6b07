"""The kinds of weight files that people keep: how to tell one, and how its names map to ours.

| kind           | the file holds                               | names                         |
|----------------|----------------------------------------------|-------------------------------|
| ResNeXt3D-101  | `state_dict`, mostly under `module.`         | Hara's: `conv1`, `layer1`     |
| I3D            | bare                                         | `Conv3d_1a_7x7`, `Mixed_3b`   |
| R(2+1)D-34     | bare; 359, 487 or 400 classes                | torchvision's: `stem`         |
| SlowFast       | `model_state` or `state_dict`                | PySlowFast's: `s1` ... `s5`   |
| R(2+1)D-18 ... | bare                                         | torchvision's                 |
| checkpoint     | `state_dict`; this code's or the reference's | ours: `features`, `fc_action` |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from models.archs import ArchError

CLASSIFIER = "fc_action"


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        name: for messages.
        backbone: the backbone whose weights it holds; None if its architecture says so.
        markers: entries that a file of this kind has, and one of an earlier kind has not.
        renaming: its prefixes -> the network's.
        classifier: prefix of its classifier; its classes need not be the network's.
        pointwise: whether the classifier is a 1x1x1 convolution, not a linear layer.
    """

    name: str
    backbone: str | None
    markers: tuple[str, ...]
    renaming: Mapping[str, str]
    classifier: str
    pointwise: bool = False

    def to_network(self, key: str) -> str:
        """The network's name of an entry; an unknown one stays as it is."""
        return _replace(key, {**self.renaming, self.classifier: CLASSIFIER}) or key

    def to_file(self, key: str) -> str | None:
        """This kind's name of a network's entry; None for what such files do not hold."""
        back = {ours: theirs for theirs, ours in self.renaming.items()}
        return _replace(key, {**back, CLASSIFIER: self.classifier})


def _replace(key: str, prefixes: Mapping[str, str]) -> str | None:
    """`key` with the longest of the prefixes that it has replaced; None if it has none."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in prefixes:
            return ".".join([prefixes[prefix], *parts[length:]])
    return None


def _numbered(names: str, start: int = 0) -> dict[str, str]:
    """Names of consecutive parts of `features`; "-" has no weights."""
    return {n: f"features.{i}" for i, n in enumerate(names.split(), start) if n != "-"}


def _inside(names: str) -> dict[str, str]:
    return {name: f"features.{name}" for name in names.split()}


_STAGES = "layer1 layer2 layer3 layer4"
_RESNET = _numbered(f"stem {_STAGES}")
_I3D = _numbered(
    "Conv3d_1a_7x7 - Conv3d_2b_1x1 Conv3d_2c_3x3 - Mixed_3b Mixed_3c - "
    "Mixed_4b Mixed_4c Mixed_4d Mixed_4e Mixed_4f - Mixed_5b Mixed_5c"
)
_SLOWFAST = [f"s{i}" for i in range(1, 6)] + [f"s{i}_fuse" for i in range(1, 5)]

# fmt: off
PUBLISHED = (
    FileKind("ResNeXt3D-101", "resneXt3D", ("conv1.weight", "layer3.22.conv3.weight"),
             _numbered("conv1 bn1") | _numbered(_STAGES, 4), "fc"),
    FileKind("I3D", "I3D", ("Conv3d_1a_7x7.conv3d.weight",), _I3D, "logits.conv3d", True),
    FileKind("R(2+1)D-34", "r2plus1d", ("stem.3.weight", "layer1.2.conv1.0.3.weight"),
             _RESNET, "fc"),
    FileKind("SlowFast", "slowfast", ("s1.pathway0_stem.conv.weight",),
             {name: f"model.{name}" for name in _SLOWFAST}, "head.projection"),
    FileKind("R(2+1)D-18", "r2plus1d_18", ("stem.3.weight", "layer1.1.conv1.0.3.weight"),
             _RESNET, "fc"),
    FileKind("R3D-18", "r3d_18", ("stem.0.weight", "layer1.1.conv1.0.weight"), _RESNET, "fc"),
    FileKind("S3D", "s3d", ("features.0.0.0.weight", "classifier.1.weight"),
             {"features": "features"}, "classifier.1", True),
    FileKind("Swin3D-T", "swin3d_t", ("patch_embed.proj.weight", "norm.weight"),
             _inside("patch_embed features norm"), "head"),
    FileKind("MViTv2-S", "mvit_v2_s", ("conv_proj.weight", "norm.weight"),
             _inside("conv_proj pos_encoding blocks norm"), "head.1"),
)
# fmt: on
CHECKPOINT = FileKind("checkpoint", None, (), {}, CLASSIFIER)
_OURS = ("features.", "model.")


def published_kind(backbone: str) -> FileKind:
    """The kind of file that a backbone's weights are published in."""
    for kind in PUBLISHED:
        if kind.backbone == backbone:
            return kind
    raise ArchError(f"{backbone} has no published weights, so no other names")


def find_kind(keys: Iterable[str]) -> FileKind:
    """What a file with these entries is; raises ArchError if it is none of the known kinds."""
    keys = set(keys)
    for kind in PUBLISHED:
        if keys.issuperset(kind.markers):
            return kind
    if any(key.startswith(_OURS) for key in keys):
        return CHECKPOINT
    known = ", ".join(kind.name for kind in (*PUBLISHED, CHECKPOINT))
    first = ", ".join(sorted(keys)[:3]) or "nothing"
    raise ArchError(f"its entries ({first}, ...) are of no known kind of file: {known}")
