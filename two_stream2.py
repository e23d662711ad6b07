"""Trains a network with SGD, the recipe of the average-pooled 3D CNNs.

    python two_stream2.py --arch=rgb_resneXt3D64f101 --split=1 --dataset=hmdb51

-c continues from the best model, -e evaluates it.
"""

from engine.command.start import run

from engine import cli
from engine.config import TrainingConfig
from engine.training.run import run_training
from opt import sgd


def parse_args(argv: list[str] | None = None) -> TrainingConfig:
    parser = cli.training_parser(
        __doc__, recipe="paper-sgd", arch="rgb_resneXt3D64f101", print_freq=200
    )
    parser.add_argument("--start-epoch", type=cli.non_negative, help="number of the first epoch")
    return cli.training_config(parser, argv)


def main(argv: list[str] | None = None) -> int:
    return run_training(parse_args(argv), sgd)


if __name__ == "__main__":
    run(main)
