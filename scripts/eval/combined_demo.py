"""Two-stream test: an RGB and a flow network on the same videos, and their fusion.

    python scripts/eval/combined_demo.py --arch_rgb=rgb_resneXt3D64f101_bert10_FRMB \
        --arch_flow=flow_resneXt3D64f101_bert10_FRMB --split=1 --dataset=hmdb51
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.cli import run, testing_parser
from engine.flag_types import path
from engine.testing.run import run_fused_test


def main(argv: list[str] | None = None) -> int:
    parser = testing_parser(__doc__)
    add = parser.add_argument_group("streams").add_argument
    add("--arch_rgb", "--arch-rgb", "-b", default="rgb_resneXt3D64f101_bert10_FRMB")
    add("--arch_flow", "--arch-flow", "-a", default="flow_resneXt3D64f101_bert10_FRMB")
    add(
        "--checkpoint_rgb", "--checkpoint-rgb", type=path, metavar="FILE", help="of the RGB network"
    )
    add("--checkpoint_flow", "--checkpoint-flow", type=path, metavar="FILE", help="of the flow one")
    add("--single-clip", action="store_true", help="the clip from the middle, not all clips")
    args = parser.parse_args(argv)
    return run_fused_test(args, "single" if args.single_clip else "multi")


if __name__ == "__main__":
    run(main)
