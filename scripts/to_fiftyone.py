"""Predictions and ground truth of score files as a dataset that FiftyOne opens.

    python scripts/to_fiftyone.py results/*.npz --output results/fiftyone
    # then, where FiftyOne is installed:
    fiftyone datasets create --name tests --dataset-dir results/fiftyone \
        --type fiftyone.types.FiftyOneDataset
    fiftyone app launch tests

The folder holds samples.json and metadata.json, and under data/ an MP4 of each video whose frames
come from folders or a pack; video files are named where they lie. A sample has `ground_truth` and,
for each test, a classification with label, confidence and logits; its tags say which tests are
wrong. The tests must be of the same videos.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import cli
from engine.config import ReportConfig
from engine.reporting.fiftyone import export_fiftyone


def main(argv: list[str] | None = None) -> int:
    parser = cli.report_parser(__doc__)
    add = parser.add_argument
    add("--output", type=cli.path, metavar="DIR", help="new folder to write (results/fiftyone)")
    args = parser.parse_args(argv)
    samples, folder = export_fiftyone(cli.fill(ReportConfig, args), args.files)
    print(f"{samples} samples: {folder}")
    return 0


if __name__ == "__main__":
    run(main)
