"""The table of architectures, from the registry.

python scripts/list_archs.py            prints it
python scripts/list_archs.py --update   writes it into README.md
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models import create_model, get_arch, list_archs

BEGIN, END = "<!-- architectures: begin -->", "<!-- architectures: end -->"
CLASSES = 51


def arch_row(name: str) -> str:
    """One line of the table; nothing is computed, the clip has no data."""
    spec = get_arch(name)
    with torch.device("meta"):
        model = create_model(name, CLASSES).eval()
        clip = torch.empty(1, *spec.clip_shape)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)
    gmacs = counter.get_total_flops() / 2e9
    return f"| `{name}` | {parameters:.3f} | {gmacs:.3g} | {spec.frames} | {spec.input.crop} |"


def arch_table() -> str:
    """Markdown: every architecture at 51 classes."""
    head = "| architecture | parameters (M) | GMACs a clip | frames | size |\n|---|--:|--:|--:|--:|"
    return "\n".join([head, *map(arch_row, list_archs())])


def updated(readme: str) -> str:
    """The README's text with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{arch_table()}\n{END}{after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write it into README.md")
    if parser.parse_args().update:
        path = ROOT / "README.md"
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(arch_table())
