"""Exports rows of the table of architectures and compares the answers, a line of JSON each.

    python -m tests.engine.exporting.sweep >> sweep.jsonl          every row: hours of one core
    python -m tests.engine.exporting.sweep rgb_I3D64f_bert2 ...

Two clips and one clip go through each file; numbers are the largest difference of probabilities.
docs/EXPORT.md names the rows that were tried.
"""

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from engine.exporting.check import AGREEMENT
from engine.exporting.clips import made_clips
from engine.exporting.export import deploy
from engine.exporting.formats import FORMATS, trace
from models import list_archs
from tests.engine.exporting.networks import trained


def try_row(name: str, folder: Path) -> dict:
    start, found = time.process_time(), {"row": name}
    network = trained(name, classes=51)
    deployed = deploy(network, ten_crop=False)
    clips = made_clips(network.spec, deployed.sizes[0], 2)
    with torch.inference_mode():
        wanted = deployed(torch.from_numpy(clips)).numpy()
    program = trace(deployed)
    for format, number in (("pt2", 1), ("onnx", 2)):
        path = folder / f"net{FORMATS[format].suffix}"
        FORMATS[format].write(program, {}, path)
        answers = FORMATS[format].read(path)(clips[:number])
        found[format] = float(np.abs(answers - wanted[:number]).max())
        found[f"{format} MB"] = round(path.stat().st_size / 1e6, 1)
    found["clips differ by"] = float(np.abs(wanted[0] - wanted[1]).max())
    found["agrees"] = max(found["pt2"], found["onnx"]) <= AGREEMENT
    return found | {"cpu s": round(time.process_time() - start)}


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    for name in names or list_archs():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = try_row(name, Path(folder))
            except Exception as error:  # an exporter's may be of any kind; the next row follows
                found = {"row": name, "agrees": False, "error": f"{error}"[:300]}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
