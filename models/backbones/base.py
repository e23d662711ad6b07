"""What a row of the table of backbones holds: inputs, naming, pathways and published files."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn
from torchvision.ops import StochasticDepth

CLASSIFIER = "fc_action"  # every network's name for its last layer


def droppable() -> StochasticDepth:
    """The end of a residual block's branch, which `drop_path` lets training leave out per clip."""
    return StochasticDepth(0.0, "row")


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


@dataclass(frozen=True)
class FileKind:
    """The names of entries in one kind of published weight files.

    Attributes:
        name: for messages.
        markers: entries that tell a file of this kind; of two kinds in one module that share
            them, the row that stands first is meant.
        renaming: its prefixes -> the network's.
        classifier: prefix of its classifier; its classes need not be the network's.
        pointwise: whether the classifier is a 1x1x1 convolution, not a linear layer.
    """

    name: str
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


def numbered(names: str) -> dict[str, str]:
    """A renaming to consecutive children of `features`; "-" has no weights."""
    return {name: f"features.{i}" for i, name in enumerate(names.split()) if name != "-"}


def inside(names: str, module: str = "features") -> dict[str, str]:
    """A renaming to children of `module` with the same names."""
    return {name: f"{module}.{name}" for name in names.split()}


@dataclass(frozen=True)
class Pathway:
    """One stream of features inside a backbone.

    Attributes:
        width: channels of the features.
        time_stride: clip frames for one temporal token.
        reduction_block: channels in -> the block that narrows the features (FRAB, FRMB).
        reduced_width: channels after that block.
        last_block: name of the block inside the backbone that FRMB replaces.
        last_block_in: channels that this block takes.
    """

    width: int
    time_stride: int
    reduction_block: Callable[[int], nn.Module] | None = None
    reduced_width: int | None = None
    last_block: str | None = None
    last_block_in: int | None = None


@dataclass(frozen=True)
class Backbone:
    """Everything that follows from a backbone.

    Attributes:
        name: what `ArchSpec.backbone` calls it.
        naming: how it stands in an architecture's name, `{}` being the clip length.
        features: input channels -> network from clips to features (N, width, T/time_stride, h, w),
            one tensor for each pathway.
        pathways: one, or two: slow, fast.
        inputs: modality, "rgb" or "flow" -> what the network expects.
        only_frames: the one clip length that it takes, where there is just one.
        files: the kind of file that its weights are published in, where they are.
        factorised: whether its convolutions are of 1x3x3 and 3x1x1, not of 3x3x3.
        stages: of its last stages, name -> the first of the network's `backbone_parts` in it. A
            cache may keep the maps in front of one, and a training learn from there on.
    """

    name: str
    naming: str
    features: Callable[[int], nn.Module]
    pathways: tuple[Pathway, ...]
    inputs: Mapping[str, InputSpec]
    only_frames: int | None = None
    files: FileKind | None = None
    factorised: bool = False
    stages: Mapping[str, int] = field(default_factory=dict)

    @property
    def two_pathways(self) -> bool:
        return len(self.pathways) == 2


def collect(rows: Iterable, *unique: str) -> dict:
    """Name -> row; raises ValueError if two rows share the value of a field that is unique."""
    table = {}
    for row in rows:
        for name in unique:
            value = getattr(row, name)
            if any(getattr(other, name) == value for other in table.values()):
                raise ValueError(f"the {name} {value} is registered twice")
        table[row.name] = row
    return table
