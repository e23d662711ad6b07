"""A trained network -> a file of a format, written only if it answers what PyTorch does."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from datasets.files import check_writable, said_plainly
from engine import UsageError, __version__
from engine.applying.networks import TrainedNetwork
from engine.exporting.check import check_answers
from engine.exporting.deployed import Deployed
from engine.exporting.formats import FORMATS, Answers

LAYOUT = "uint8 (clips, frames, height, width, channels)"


@dataclass(frozen=True)
class Exported:
    """A file that was written: what runs it, and how far it is from PyTorch's probabilities."""

    format: str
    path: Path
    run: Answers
    difference: float


def deploy(network: TrainedNetwork, ten_crop: bool) -> Deployed:
    """The network with its test's preprocessing.

    Pictures are stretched to the size that training's were extracted at, then to the network's, as
    the tests read a video; flow images, which are made of pictures of that size, to the network's.
    """
    prepared = network.preparation.width, network.preparation.height
    sizes = [network.spec.input.resize]
    if network.spec.modality == "rgb" and None not in prepared and prepared != sizes[0]:
        sizes.insert(0, prepared)
    return Deployed(network.model, sizes, ten_crop, network.flip)


def file_metadata(network: TrainedNetwork, deployed: Deployed) -> dict:
    """What a file says of its network, as plain values: all that one needs to use it."""
    spec, made, flow = network.spec, network.preparation, None
    if spec.modality == "flow":
        flow = {
            "engine": made.flow if network.recorded else None,
            "bound": made.bound,
            "frame_size": [made.width, made.height],
            "rule": "displacement from a frame to the next, in pixels, x and y; "
            "-bound..bound is stored as 0..255, clipped beyond",
        }
    channels = "RGB" if flow is None else "flow x, flow y"
    return {
        "arch": spec.name,
        "classes": list(network.classes),
        "input": spec.describe_input() | {"layout": LAYOUT, "channels": channels},
        "frame_rate": network.fps,
        "crops": deployed.crops,
        "flow": flow,
        "versions": {"torch": str(torch.__version__), "late_temporal": __version__},
    }


def check_export(format: str, output: Path) -> None:
    """Raises UsageError or OSError, before any work, for what could not be written."""
    FORMATS[format].needs()
    if not output.parent.is_dir():
        raise UsageError(f"no folder {output.parent} to write {output.name} into; make it first")
    if output.is_dir():
        raise UsageError(f"{output} is a folder; --output names the file to write")
    check_writable(output.parent)


def write_export(
    program: ExportedProgram,
    deployed: Deployed,
    metadata: dict,
    format: str,
    output: Path,
    clips: np.ndarray,
) -> Exported:
    """Writes a file beside `output` and, if it agrees on the clips, renames it.

    Raises UsageError if it does not agree or cannot be made; nothing is then left.
    """
    row = FORMATS[format]
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export_") as folder:
        draft = Path(folder) / output.name
        with said_plainly(output):
            row.write(program, metadata, draft)
        run = row.read(draft)
        difference = check_answers(run, deployed, clips, format)
        shutil.move(draft, output)
    return Exported(format, output, run, difference)
