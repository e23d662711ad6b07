"""Which temporal head is best on the same features? Heads x seeds x splits, one table.

    python scripts/ablate.py --cache DIR [DIR ...] --preset table1
    python scripts/ablate.py --cache DIR --heads average bert10 lstm --seeds 10
    python scripts/ablate.py --cache RGB_DIR --flow-cache FLOW_DIR --heads average bert2
    python scripts/ablate.py -d motions -a flow_tiny3D16f_FRMB --heads average bert10 \\
        --time-order normal reversed --subset order=up_then_down,down_then_up \\
        -- --epochs 14 -b 16 --iter-size 1 --lr 2e-3 --scheduler cosine --warmup-epochs 2

On token caches, a folder for each split, every head is tuned alike: all settings of the grid by
cross-validation inside the training list (clips of one group stay on one side: names of known
datasets tell, or --group), then a training for each seed with the best, each tested once on all
views. --preset table1 is the paper's temporal pooling, table2 its variants of BERT; where the cache
holds feature maps, table1 has the non-local block too. With --seeds 0 it tunes and no more: it
prints the flags of the best setting for two_stream_bert2.py, and writes them to tuning.json.
--leave-one-out tests each group (a sequence of a set) by networks that learned from all others of
its training list, with the setting that was tuned on another cache; --shots 4 tests networks that
learned from four videos a class. With one --output these share their tuning; --tuned takes it from
tuning.json of another, as for caches of maps in front of a stage, where trainings take minutes.

With --flow-cache each head sees the tokens of both streams, RGB's and then flow's (docs/CACHE.md).

With --dataset and --arch whole networks are trained by the training scripts, with the flags
after -- for both optimizers; nothing is tuned, and the last epoch is tested.

Output: ablation.json, ablation.md, ablation.png, and runs.jsonl, a line a finished training: the
same command resumes after a kill.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import resumable, run

import two_stream2
import two_stream_bert2
from engine import cli
from engine.ablation.run import OUTPUT, ablate_networks, ablate_tokens
from engine.cli.flag_types import regex
from engine.config import AblationConfig, SpeedConfig
from engine.files import resolve
from engine.training.folder import owned


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--cache", type=cli.path, nargs="+", metavar="DIR", help="token caches, one for each split")
    help = "token caches of flow, in the order of --cache: heads see both streams' tokens"
    add("--flow-cache", type=cli.path, nargs="+", default=(), metavar="DIR", help=help)
    add("-d", "--dataset", type=cli.plain_name, help="without caches: train whole networks on it")
    add("-a", "--arch", help="network of scripts/list_archs.py; its head does not matter")
    add(
        "-s",
        "--splits",
        type=cli.positive,
        nargs="+",
        default=[1],
        help="numbers of its splits (1)",
    )
    add("--settings", type=cli.path, help="folder of the lists (datasets/settings)")
    add("--frames", type=cli.path, help="its frame folders (datasets/<dataset>_frames)")
    help = "processes that load clips (%(default)s)"
    add("-j", "--workers", type=cli.non_negative, default=2, help=help)
    add = parser.add_argument_group("heads").add_argument
    add("--preset", choices=("table1", "table2"), help="the heads of one of the paper's tables")
    add(
        "--heads",
        nargs="+",
        metavar="HEAD",
        help="heads to compare, e.g. average_sgd lstm bert2_1head",
    )
    add("--base", metavar="HEAD", help="head that the others are compared with (%(default)s)")
    help = "tested trainings of each head; 0: only tune, and test nothing (%(default)s)"
    add("--seeds", type=cli.non_negative, help=help)
    help = "test each group of the training list by networks of the others, tuned on another cache"
    add("--leave-one-out", action="store_true", help=help)
    help = "videos of each class that a tested network learns from, drawn by its seed (all)"
    add("--shots", type=cli.positive, metavar="N", help=help)
    add("--device", help="where to compute: cuda, cpu, ... (cuda if there is one)")
    cli.add_speed_flags(parser)
    _add_tuning_flags(parser)
    _add_report_flags(parser)
    parser.add_argument("flags", nargs="*", help="after --: the training scripts' flags")


def _add_tuning_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("tuning, on caches alone").add_argument
    add(
        "--group",
        type=regex,
        metavar="REGEX",
        help="what in a name tells which videos stay together",
    )
    add("--folds", type=cli.positive, help="folds of the cross-validation (%(default)s)")
    help = "trainings of each fold, with other seeds: ties are few, luck is less (%(default)s)"
    add("--fold-seeds", type=cli.positive, help=help)
    help = "settings a head may try: a best one at the grid's edge widens it (%(default)s)"
    add("--budget", type=cli.positive, help=help)
    add("--lr", type=cli.above_zero, nargs="+", help="learning rates to choose from (1e-4 3e-4)")
    help = "weight decays to choose from"
    add("--weight-decay", type=cli.not_below_zero, nargs="+", help=help)
    add("--epochs", type=cli.positive, nargs="+", help="numbers of epochs to choose from (30 60)")
    add("--batch-size", type=cli.positive, help="videos in a batch (%(default)s)")
    help = "tuning.json of earlier ablations: their rates, for --epochs, and nothing is tuned"
    add("--tuned", type=cli.path, nargs="+", default=(), metavar="FILE", help=help)
    help = "learning rate of the stages that learn from a cache of maps (that of the head)"
    add("--stage-lr", type=cli.above_zero, metavar="LR", help=help)


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("report").add_argument
    add(
        "--time-order", type=cli.time_order, nargs="+", help="orders of the test's tokens to report"
    )
    help = "a column with the accuracy on these classes"
    add("--subset", action="append", default=[], metavar="NAME=CLASS,CLASS", help=help)
    add(
        "--output",
        type=cli.path,
        metavar="DIR",
        help="folder of trainings and report (results/ablation)",
    )


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.new_parser(__doc__, AblationConfig, SpeedConfig)
    _add_flags(parser)
    # what excludes what
    args = parser.parse_args(argv)
    if bool(args.cache) == bool(args.dataset and args.arch):
        parser.error("give --cache, or --dataset and --arch")
    if not args.preset and not args.heads:
        parser.error("give --preset or --heads")
    if args.dataset and not args.seeds:
        parser.error("--seeds 0 only tunes, which is for --cache")
    if args.cache and (args.flags or args.folds < 2):
        parser.error("with --cache there are 2 --folds or more, and no flags of training scripts")
    if args.tuned and (len(args.epochs) > 1 or not args.seeds):
        parser.error("--tuned tunes nothing: give one number of --epochs, and --seeds")
    if args.leave_one_out and args.shots:
        parser.error("--leave-one-out trains on all other groups; leave --shots out")
    if args.cache and args.flow_cache:
        if len(args.flow_cache) != len(args.cache):
            parser.error(f"give as many --flow-cache as --cache, {len(args.cache)}")
        if not args.seeds:
            parser.error("--seeds 0 gives flags of a training; none takes two streams' tokens")
    if args.cache:
        foreign = ("dataset", "arch", "splits", "settings", "frames", "workers")
        reason = "is for whole networks; a cache tells its own"
    else:
        foreign = ("group", "folds", "fold_seeds", "budget", "lr", "weight_decay", "epochs")
        foreign += ("batch_size", "tuned", "stage_lr", "flow_cache", "leave_one_out", "shots")
        foreign += tuple(field.name for field in fields(SpeedConfig))
        reason = "tunes on a cache; the training scripts' flags stand after --"
    for name in foreign:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} {reason}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    config = cli.fill(AblationConfig, args)
    with owned(resolve(config.output, OUTPUT)):
        return _ablate(config, args)


def _ablate(config: AblationConfig, args: argparse.Namespace) -> int:
    if args.cache:
        with resumable():
            return ablate_tokens(config, args.cache, args.flow_cache)
    flags = ["--dataset", args.dataset, "--arch", args.arch, "--workers", str(args.workers)]
    for name in ("settings", "frames", "device"):
        if (value := getattr(args, name)) is not None:
            flags += [f"--{name}", str(value)]
    flags += args.flags
    trainings = {
        "adamw": two_stream_bert2.parse_args(flags),
        "sgd": two_stream2.parse_args(flags),
    }
    return ablate_networks(config, trainings, args.splits, args.flags)


if __name__ == "__main__":
    run(main)
