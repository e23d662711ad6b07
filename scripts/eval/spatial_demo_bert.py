"""Single-clip test: the clip from the middle of the video, ten crops of it by default.

python scripts/eval/spatial_demo_bert.py --arch=rgb_resneXt3D64f101_bert10_FRMB --split=1
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.command.start import run

from engine import cli
from engine.config import TestConfig
from engine.reporting.write import report_test
from engine.testing.run import run_test


def main(argv: list[str] | None = None) -> int:
    args = cli.single_stream_parser(__doc__).parse_args(argv)
    config = cli.fill(TestConfig, args, clips="single")
    code = run_test(config, (args.arch, args.checkpoint))
    report_test(config, args.arch)
    return code


if __name__ == "__main__":
    run(main)
