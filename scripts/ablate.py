"""Which temporal head is best on the same features? Heads x seeds x splits, one table.

    python scripts/ablate.py --cache DIR [DIR ...] --preset table1
    python scripts/ablate.py --cache DIR --heads average bert10 lstm --seeds 10
    python scripts/ablate.py -d motions -a flow_tiny3D16f_FRMB --heads average bert10 \\
        --time-order normal reversed --subset order=up_then_down,down_then_up \\
        -- --epochs 14 -b 16 --iter-size 1 --lr 2e-3 --scheduler cosine --warmup-epochs 2

On token caches, a folder for each split, every head is tuned alike: all settings of the grid by
cross-validation inside the training list (clips of one group stay on one side: names of known
datasets tell, or --group), then a training for each seed with the best, each tested once on all
views. --preset table1 is the paper's temporal pooling, table2 its variants of BERT; where the cache
holds feature maps, table1 has the non-local block too.

With --dataset and --arch whole networks are trained by the training scripts, with the flags
behind -- for both optimizers; nothing is tuned, and the last epoch is tested.

Output: ablation.json, ablation.md, ablation.png, and runs.jsonl, a line a finished training: the
same command goes on after a kill.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import two_stream2
import two_stream_bert2
from datasets import create_dataset
from engine import UsageError
from engine.ablation.heads import head_size
from engine.ablation.networks import NetworkSweep, check_name
from engine.ablation.protocol import Grid, Ledger, Row, TokenSweep, rows_of, token_split
from engine.ablation.report import markdown, plot, subsets_of, summarize_row
from engine.cli import run
from engine.data import data_folder
from engine.distributed import choose_device
from engine.files import resolve, write_json
from engine.flag_types import (
    above_zero,
    non_negative,
    not_below_zero,
    path,
    plain_name,
    positive,
    regex,
    time_order,
)
from engine.tokens.cache import open_cache
from models import NETWORKS, get_arch
from scripts.eval import spatial_demo3D


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("data").add_argument
    add("--cache", type=path, nargs="+", metavar="DIR", help="token caches, one for each split")
    add("-d", "--dataset", type=plain_name, help="without caches: train whole networks on it")
    add("-a", "--arch", help="of these; its head does not matter")
    add("-s", "--splits", type=positive, nargs="+", default=[1], help="of these (1)")
    add("--settings", type=path, help="folder of the lists (datasets/settings)")
    add("--frames", type=path, help="frame folders (datasets/<dataset>_frames)")
    add("-j", "--workers", type=non_negative, default=2, help="loader processes (%(default)s)")
    add = parser.add_argument_group("heads").add_argument
    add("--preset", choices=("table1", "table2"), help="the paper's tables")
    add("--heads", nargs="+", default=[], metavar="HEAD", help="e.g. average_sgd lstm bert2_1head")
    add("--base", default="average", metavar="HEAD", help="to compare with (%(default)s)")
    add("--seeds", type=positive, default=5, help="trainings of each (%(default)s)")
    add("--device", help="cuda, cpu, ...; default: cuda if there is one")
    add = parser.add_argument_group("tuning, on caches alone").add_argument
    add("--group", type=regex, metavar="REGEX", help="says which videos belong together")
    add("--folds", type=positive, default=5, help="(%(default)s)")
    add("--lr", type=above_zero, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    add("--weight-decay", type=not_below_zero, nargs="+", default=[1e-3])
    add("--epochs", type=positive, nargs="+", default=[30])
    add("--batch-size", type=positive, default=16, help="videos (%(default)s)")
    add = parser.add_argument_group("report").add_argument
    add("--time-order", type=time_order, nargs="+", default=["normal"], help="of test tokens")
    add("--subset", action="append", default=[], metavar="NAME=CLASS,CLASS", help="a column")
    add("--output", type=path, metavar="DIR", help="(results/ablation)")
    parser.add_argument("flags", nargs="*", help="behind --: the training scripts' flags")
    args = parser.parse_args(argv)
    if bool(args.cache) == bool(args.dataset and args.arch):
        parser.error("give --cache, or --dataset and --arch")
    if not args.preset and not args.heads:
        parser.error("give --preset or --heads")
    if args.cache and (args.flags or args.folds < 2):
        parser.error("with --cache there are 2 --folds or more, and no flags of training scripts")
    for name in ("dataset", "arch", "splits", "settings", "frames", "workers"):
        if args.cache and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} is for whole networks; a cache tells its own")
    for name in ("group", "folds", "lr", "weight_decay", "epochs", "batch_size"):
        if args.dataset and getattr(args, name) != parser.get_default(name):
            flag = "--" + name.replace("_", "-")
            parser.error(f"{flag} tunes on a cache; the training scripts' flags stand behind --")
    return args


def sweep_tokens(args: argparse.Namespace, output: Path) -> dict:
    """All trainings on caches; returns the summary."""
    caches = [open_cache(folder) for folder in args.cache]
    about = caches[0].about
    for other in caches[1:]:
        if other.about["tokens"] != about["tokens"] or other.about["dataset"] != about["dataset"]:
            raise UsageError(f"{other.folder} is not of the same dataset and network")
    if len({cache.about["split"] for cache in caches}) < len(caches):
        raise UsageError("two of the caches are of one split")
    maps = caches[0].train.tokens[0].ndim == 5
    rows = rows_of(args.preset, args.heads, get_arch(about["arch"]), maps)
    check_report(args, rows, about["class_names"])
    protocol = {key: about[key] for key in ("dataset", "tokens", "views")}
    protocol |= {"weights": about["weights"]["sha256"]}
    protocol |= {
        "group": args.group and args.group.pattern,
        "folds": args.folds,
        "batch_size": args.batch_size,
    }
    protocol |= {"lists": {cache.about["split"]: cache.about["fingerprint"] for cache in caches}}
    ledger = Ledger(output / "runs.jsonl", protocol)
    grid = Grid(args.lr, args.weight_decay, args.epochs)
    device = choose_device(args.device)
    sweep = TokenSweep(ledger, grid, args.batch_size, args.time_order, device)
    finals: dict[Row, list[dict]] = {row: [] for row in rows}
    tuning: dict[Row, dict] = {row: {} for row in rows}
    bar = tqdm(total=len(rows) * len(caches), dynamic_ncols=True, disable=None, unit="head")
    for cache in caches:
        loaded = {kind: token_split(cache, kind, args.group, args.folds) for kind in {False, maps}}
        for row, spec in rows.items():
            split = loaded[bool(NETWORKS[spec.head].encodes)]
            bar.set_description(f"split {split.number}, {row.title}")
            setting, tried = sweep.tune(row, spec, split)
            tuning[row][split.number] = {"chosen": vars(setting), "tried": tried}
            finals[row] += [
                sweep.final(row, spec, split, setting, seed) for seed in range(args.seeds)
            ]
            bar.update()
    bar.close()
    return summarize(args, rows, finals, tuning, about["class_names"]) | {"protocol": protocol}


def sweep_networks(args: argparse.Namespace, output: Path) -> dict:
    """All trainings of whole networks; returns the summary."""
    rows = rows_of(args.preset, args.heads, get_arch(args.arch), maps=True)
    for spec in rows.values():
        check_name(spec)
    check_report(args, rows, class_names(args))
    protocol = {"dataset": args.dataset, "arch": args.arch, "flags": args.flags}
    flags = ["--workers", str(args.workers)]
    for name in ("settings", "frames", "device"):
        if (value := getattr(args, name)) is not None:
            flags += [f"--{name}", str(value)]
            protocol[name] = str(resolve(value, "")) if name != "device" else value
    trainings = {"adamw": two_stream_bert2.main, "sgd": two_stream2.main}
    sweep = NetworkSweep(
        Ledger(output / "runs.jsonl", protocol),
        args.dataset,
        flags,
        args.flags,
        args.time_order,
        output,
        trainings,
        spatial_demo3D.main,
    )
    finals = {
        row: [
            sweep.final(row, spec, split, seed)
            for split in args.splits
            for seed in range(args.seeds)
        ]
        for row, spec in rows.items()
    }
    return summarize(args, rows, finals, {}, class_names(args)) | {"protocol": protocol}


def class_names(args: argparse.Namespace) -> list[str]:
    """Those of the whole networks' dataset; raises DataError unless it is there."""
    modality, settings = get_arch(args.arch).modality, resolve(args.settings, "datasets/settings")
    return create_dataset(
        args.dataset, args.splits[0], modality, settings, data_folder(args), ("val",)
    ).class_names


def check_report(args: argparse.Namespace, rows: dict, classes: list[str]) -> None:
    """What the report is to say, before hours of training."""
    subsets_of(args.subset, classes)
    keys = [row.key for row in rows]
    if args.base not in keys and args.base != "average":
        raise UsageError(f"--base {args.base} is none of {', '.join(keys)}")


def summarize(
    args: argparse.Namespace, rows: dict, finals: dict, tuning: dict, classes: list[str]
) -> dict:
    """What the JSON holds and the table shows."""
    bases = [row for row in rows if row.key == args.base]
    base = bases[0] if bases else next(iter(rows))
    subsets = subsets_of(args.subset, classes)
    return {
        "base": base.key,
        "seeds": args.seeds,
        "classes": classes,
        "subsets": subsets,
        "rows": [
            summarize_row(
                row,
                finals[row],
                finals[base],
                subsets,
                len(classes),
                head_size(spec, len(classes)),
                tuning.get(row, {}),
            )
            for row, spec in rows.items()
        ],
    }


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    output = resolve(args.output, "results/ablation")
    summary = sweep_tokens(args, output) if args.cache else sweep_networks(args, output)
    write_json(output / "ablation.json", summary)
    table = markdown(summary)
    (output / "ablation.md").write_text(table, encoding="utf-8")
    plot(summary, output / "ablation.png")
    print(f"{table}\n{output}/ablation.json, .md, .png")
    return 0


if __name__ == "__main__":
    run(main)
