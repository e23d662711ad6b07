"""The formats of an exported network: how each is written, and how it is run.

pt2    a graph of torch.export, run by PyTorch without this code
aoti   the same, compiled to machine code of this machine by AOTInductor
onnx   for onnxruntime and whatever else reads ONNX
"""

import importlib.util
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from engine import UsageError
from engine.exporting.deployed import Deployed

Answers = Callable[[np.ndarray], np.ndarray]  # uint8 (N, T, H, W, C) -> float32 (N, classes)
INPUT_NAME, OUTPUT_NAME = "frames", "probabilities"
METADATA = "metadata.json"  # name of the part of a file that says what its network is
MOST_CLIPS, LARGEST_SIDE = 1024, 8192  # of an input
COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True)
class Format:
    """A row of the table of formats.

    Attributes:
        suffix: of its files.
        needs: raises UsageError, before any work, where the format cannot be written.
        write: (graph, metadata, path) -> the file.
        read: path -> what runs it.
        read_metadata: path -> its metadata.
    """

    suffix: str
    needs: Callable[[], None]
    write: Callable[[ExportedProgram, dict, Path], None]
    read: Callable[[Path], Answers]
    read_metadata: Callable[[Path], dict]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings about their own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trace(deployed: Deployed) -> ExportedProgram:
    """The module's graph, for any number of clips and any size of frames."""
    spec = deployed.network.spec
    example = torch.zeros(2, spec.frames, 24, 32, spec.input.channels, dtype=torch.uint8)
    sizes = {
        0: Dim("batch", min=1, max=MOST_CLIPS),
        2: Dim("height", min=2, max=LARGEST_SIDE),
        3: Dim("width", min=2, max=LARGEST_SIDE),
    }
    with torch.no_grad(), _quiet():
        return torch.export.export(deployed, (example,), dynamic_shapes=(sizes,))


def _on_tensors(module: Callable[[torch.Tensor], torch.Tensor]) -> Answers:
    def run(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(frames)).numpy()

    return run


# pt2


def _write_pt2(program: ExportedProgram, metadata: dict, path: Path) -> None:
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def _read_pt2(path: Path) -> Answers:
    return _on_tensors(torch.export.load(path).module())


def _pt2_metadata(path: Path) -> dict:
    found = {METADATA: ""}
    torch.export.load(path, extra_files=found)
    return json.loads(found[METADATA])


# AOTInductor


def _needs_compiler() -> None:
    names = [os.environ["CXX"]] if "CXX" in os.environ else COMPILERS
    if not any(map(shutil.which, names)):
        raise UsageError(
            f"--format aoti needs a C++ compiler, and there is no {' or '.join(names)}; install "
            "one (Debian: g++), or take --format pt2"
        )


def _write_aoti(program: ExportedProgram, metadata: dict, path: Path) -> None:
    configs = {"aot_inductor.metadata": {METADATA: json.dumps(metadata)}}
    with _quiet():
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=configs
        )


def _read_aoti(path: Path) -> Answers:
    return _on_tensors(torch._inductor.aoti_load_package(str(path)))


def _aoti_metadata(path: Path) -> dict:
    return json.loads(torch._inductor.aoti_load_package(str(path)).get_metadata()[METADATA])


# ONNX


def _needs_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"--format onnx needs the package {package}: pip install -r requirements.txt"
            )


def _write_onnx(program: ExportedProgram, metadata: dict, path: Path) -> None:
    names = {"input_names": [INPUT_NAME], "output_names": [OUTPUT_NAME]}
    with _quiet():
        exported = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, **names)
        _simplify(exported.model)
    for key, value in metadata.items():
        exported.model.metadata_props[key] = json.dumps(value)
    exported.save(path)


def _simplify(model: object) -> None:
    """What `optimize=True` does, with one of its rewriting rules.

    The rules' matcher walks the whole graph for each node and rule: of the 850 seconds that MViT
    takes, it takes 740. onnxruntime fuses what they would when it loads a file. The one rule
    removes the biases of zeros, misshapen, that onnxscript 0.7 gives 3D convolutions without bias.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import remove_optional_bias_from_conv_rule

    common.InlinePass()(model)
    fold_constants(model)
    rewrite(model, [remove_optional_bias_from_conv_rule])
    Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    )(model)


def _read_onnx(path: Path) -> Answers:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames: session.run([OUTPUT_NAME], {INPUT_NAME: frames})[0]


def _onnx_metadata(path: Path) -> dict:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


FORMATS = {
    "pt2": Format(".pt2", lambda: None, _write_pt2, _read_pt2, _pt2_metadata),
    "aoti": Format("_aoti.pt2", _needs_compiler, _write_aoti, _read_aoti, _aoti_metadata),
    "onnx": Format(".onnx", _needs_onnx, _write_onnx, _read_onnx, _onnx_metadata),
}
