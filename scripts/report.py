"""A report on score files, to read in a browser and to send: one HTML file with all it needs.

    python scripts/report.py results/*.npz
    python scripts/report.py RGB.npz FLOW.npz FUSED.npz --output report.html --max-mb 60

It shows accuracies with intervals, a confusion matrix whose cells open their videos, the worst
mistakes and the least certain answers, tests of the same videos side by side, calibration, classes,
the curves of the trainings, and how all was made. The file needs no server and no network.

Where the videos are stands in the JSON beside each score file; --dataset, --settings and --frames
say otherwise. Videos that are not there are left out, and the report says so. docs/REPORT.md
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import cli
from engine.config import ReportConfig
from engine.reporting.write import make_report


def main(argv: list[str] | None = None) -> int:
    parser = cli.report_parser(__doc__)
    add = parser.add_argument
    add(
        "--output", type=cli.path, metavar="FILE.html", help="page to write (the first file's name)"
    )
    add(
        "--max-mb",
        type=cli.above_zero,
        metavar="N",
        help="largest size of the file, in millions of bytes: more shows more videos (%(default)g)",
    )
    add("--runs", type=cli.path, metavar="DIR", help="where training kept its runs, for the curves")
    args = parser.parse_args(argv)
    print(f"report: {make_report(cli.fill(ReportConfig, args), args.files)}")
    return 0


if __name__ == "__main__":
    run(main)
