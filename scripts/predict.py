"""Applies a trained network to videos: files, folders, globs, a camera, a pipe, a URL.

    python scripts/predict.py VIDEO --run checkpoint/mine_rgb_I3D64f_bert2_split1
    python scripts/predict.py VIDEO --checkpoint rgb.pth.tar --checkpoint_flow flow.pth.tar
    python scripts/predict.py VIDEO --run DIR --timeline --overlay labelled.mp4
    python scripts/predict.py 0 --run DIR

Frames are decoded, resampled to the training's frame rate, and seen as in the tests: a trimmed
video gets the score of spatial_demo3D.py. --timeline says what happens when in a video of any
length; a camera, or --live, prints a line a second. docs/PREDICT.md says more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import cli
from engine.applying.run import run_predictions


def main(argv: list[str] | None = None) -> int:
    return run_predictions(cli.prediction_config(cli.prediction_parser(__doc__), argv))


if __name__ == "__main__":
    run(main)
