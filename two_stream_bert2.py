"""Trains a network with AdamW, the recipe of the late-temporal heads.

    python two_stream_bert2.py --arch=rgb_resneXt3D64f101_bert10_FRMB --split=1 --dataset=hmdb51

-c continues from the best model, -e evaluates it.
"""

from engine.command.start import run

from engine import cli
from engine.config import TrainingConfig
from engine.training.run import run_training
from opt import adamw


def parse_args(argv: list[str] | None = None) -> TrainingConfig:
    parser = cli.training_parser(
        __doc__, recipe="paper-adamw", arch="rgb_resneXt3D64f101_bert10_FRMB", print_freq=400
    )
    return cli.training_config(parser, argv)


def main(argv: list[str] | None = None) -> int:
    return run_training(parse_args(argv), adamw)


if __name__ == "__main__":
    run(main)
