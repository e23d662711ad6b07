"""The table of architectures, from the registry.

python scripts/list_archs.py            prints it
python scripts/list_archs.py --update   writes it into docs/ARCHITECTURES.md
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

import torch
from tabulate import tabulate

from engine.cli import new_parser
from engine.files import ROOT
from engine.metrics import count_flops
from models import create_model, get_arch, list_archs

DOCUMENT = ROOT / "docs" / "ARCHITECTURES.md"
TABLE_BEGIN, TABLE_END = "<!-- architectures: begin -->", "<!-- architectures: end -->"
HEADINGS = ["architecture", "parameters (M)", "GMACs a clip", "frames", "size"]


def arch_row(name: str) -> list[object]:
    """One line of the table; nothing is computed, the clip has no data."""
    spec = get_arch(name)
    with torch.device("meta"):
        model = create_model(name, num_classes=51)
        clip = torch.empty(1, *spec.clip_shape)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    gmacs = count_flops(model, clip) / 2e9  # a multiply-accumulate is two operations
    return [f"`{name}`", f"{parameters:.3f}", f"{gmacs:.3g}", spec.frames, spec.input.crop]


def arch_table() -> str:
    """Markdown: every architecture at 51 classes."""
    align = ["left"] + ["right"] * 4
    rows = map(arch_row, list_archs())
    return tabulate(rows, HEADINGS, "pipe", colalign=align, disable_numparse=True)


def updated(document: str) -> str:
    """The document's text with the table between its markers."""
    before, _, rest = document.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{arch_table()}\n{TABLE_END}{after}"


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--update", action="store_true", help="write docs/ARCHITECTURES.md")
    if parser.parse_args().update:
        DOCUMENT.write_text(updated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(arch_table())
    return 0


if __name__ == "__main__":
    run(main)
