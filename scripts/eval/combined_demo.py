"""Two-stream test: an RGB and a flow network on the same videos, and their fusion.

    python scripts/eval/combined_demo.py --arch_rgb=rgb_resneXt3D64f101_bert10_FRMB \
        --arch_flow=flow_resneXt3D64f101_bert10_FRMB --split=1 --dataset=hmdb51
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

from engine import cli
from engine.config import TestConfig
from engine.reporting.write import report_test
from engine.testing.run import run_fused_test


def main(argv: list[str] | None = None) -> int:
    parser = cli.testing_parser(__doc__)
    add = parser.add_argument_group("streams").add_argument
    help = "the %s network, one of scripts/list_archs.py (%%(default)s)"
    rgb_help = help % "RGB" + "; -b is no batch size here"
    add("--arch_rgb", "--arch-rgb", "-b", default="rgb_resneXt3D64f101_bert10_FRMB", help=rgb_help)
    flow = "flow_resneXt3D64f101_bert10_FRMB"
    add("--arch_flow", "--arch-flow", "-a", default=flow, help=help % "flow")
    file = {"type": cli.path, "metavar": "FILE"}
    add(
        "--checkpoint_rgb",
        "--checkpoint-rgb",
        **file,
        help="trained RGB network (its run's best model)",
    )
    add(
        "--checkpoint_flow",
        "--checkpoint-flow",
        **file,
        help="trained flow network (its run's best model)",
    )
    add(
        "--single-clip",
        action="store_true",
        help="score the clip from the middle of a video, not all clips",
    )
    args = parser.parse_args(argv)
    config = cli.fill(TestConfig, args, clips="single" if args.single_clip else "multi")
    rgb, flow = (args.arch_rgb, args.checkpoint_rgb), (args.arch_flow, args.checkpoint_flow)
    code = run_fused_test(config, rgb, flow)
    report_test(config, args.arch_rgb, args.arch_flow)
    return code


if __name__ == "__main__":
    run(main)
