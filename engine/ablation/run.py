"""Heads x seeds x splits, one table: on token caches, or of whole networks.

python scripts/ablate.py --cache DIR --preset table1
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from engine import UsageError
from engine.ablation.heads import head_size
from engine.ablation.protocol import AVERAGE, Grid, HeadRow, Ledger, rows_of
from engine.ablation.report import markdown, plot, read_finals, subsets_of, summarize_row
from engine.ablation.sweeps import NetworkSweep, TokenSweep, check_name, token_split
from engine.config import AblationConfig, TrainingConfig
from engine.data import open_split
from engine.distributed import choose_device
from engine.files import resolve, write_json, written_whole
from engine.tokens.cache import open_cache
from models import ArchSpec, get_arch

Rows = Mapping[HeadRow, ArchSpec]


def ablate_tokens(config: AblationConfig, folders: Sequence[Path]) -> int:
    """Tunes, trains and tests heads on caches, one for each split, and writes the report."""
    output = resolve(config.output, "results/ablation")
    # caches, rows
    caches = [open_cache(folder) for folder in folders]
    metadata = caches[0].metadata
    for other in caches[1:]:
        if any(other.metadata[key] != metadata[key] for key in ("tokens", "dataset")):
            raise UsageError(f"{other.folder} is not of the same dataset and network")
    if len({cache.metadata["split"] for cache in caches}) < len(caches):
        raise UsageError("two of the caches are of one split")
    maps = caches[0].train.tokens[0].ndim == 5
    rows = rows_of(config.preset, config.heads, get_arch(metadata["arch"]), maps)
    check_report(config, rows, metadata["class_names"])
    # protocol
    protocol = {key: metadata[key] for key in ("dataset", "tokens", "views")} | {
        "weights": metadata["weights"]["sha256"],
        "group": config.group and config.group.pattern,
        "folds": config.folds,
        "batch_size": config.batch_size,
        "lists": {c.metadata["split"]: c.metadata["fingerprint"] for c in caches},
    }
    ledger = Ledger(output / "runs.jsonl", protocol)
    grid = Grid(config.lr, config.weight_decay, config.epochs)
    device = choose_device(config.device)
    sweep = TokenSweep(ledger, grid, config.batch_size, config.time_order, device)
    # tune, train, test
    finals: dict[HeadRow, list[dict]] = {row: [] for row in rows}
    tuning: dict[HeadRow, dict] = {row: {} for row in rows}
    bar = tqdm(total=len(rows) * len(caches), dynamic_ncols=True, disable=None, unit="head")
    for cache in caches:
        split = token_split(cache, config.group, config.folds)
        for row, spec in rows.items():
            bar.set_description(f"split {split.number}, {row.title}")
            setting, tried = sweep.tune(row, spec, split)
            tuning[row][split.number] = {"chosen": vars(setting), "tried": tried}
            finals[row] += [
                sweep.final(row, spec, split, setting, seed) for seed in range(config.seeds)
            ]
            bar.update()
    bar.close()
    return write_summary(config, rows, finals, tuning, metadata["class_names"], protocol)


def ablate_networks(
    config: AblationConfig,
    trainings: Mapping[str, TrainingConfig],
    splits: Sequence[int],
    flags: Sequence[str],
) -> int:
    """Trains and tests whole networks, and writes the report.

    Args:
        trainings: optimizer -> its training; architecture, split and seed are filled in.
        flags: those of the trainings that the user gave, for the record.
    """
    output = resolve(config.output, "results/ablation")
    # rows
    training = trainings["adamw"]
    base, data = get_arch(training.arch), training.data
    rows = rows_of(config.preset, config.heads, base, maps=True)
    for spec in rows.values():
        check_name(spec)
    classes = open_split(data, base, ("val",)).class_names
    check_report(config, rows, classes)
    # protocol
    protocol = {"dataset": data.dataset, "arch": training.arch, "flags": list(flags)}
    given = {"settings": data.settings, "frames": data.frames}
    protocol |= {key: str(resolve(path, "")) for key, path in given.items() if path}
    protocol |= {"device": data.device} if data.device else {}
    sweep = NetworkSweep(Ledger(output / "runs.jsonl", protocol), config.time_order, trainings)
    # train, test
    finals = {
        row: [
            sweep.final(row, spec, split, seed) for split in splits for seed in range(config.seeds)
        ]
        for row, spec in rows.items()
    }
    return write_summary(config, rows, finals, {}, classes, protocol)


def check_report(config: AblationConfig, rows: Rows, classes: list[str]) -> None:
    """Raises UsageError for what the report cannot say, before hours of training."""
    subsets_of(config.subset, classes)
    keys = [row.key for row in rows]
    if config.base not in keys and config.base != AVERAGE:
        raise UsageError(f"--base {config.base} is none of {', '.join(keys)}")


def write_summary(
    config: AblationConfig,
    rows: Rows,
    finals: Mapping[HeadRow, Sequence[dict]],
    tuning: Mapping[HeadRow, dict],
    classes: list[str],
    protocol: dict,
) -> int:
    """Writes ablation.json, .md and .png, and prints the table; returns the exit code."""
    output = resolve(config.output, "results/ablation")
    tested = {row: read_finals(output, records) for row, records in finals.items()}
    base = next((row for row in rows if row.key == config.base), next(iter(rows)))
    subsets = subsets_of(config.subset, classes)
    summary = {
        "base": base.key,
        "seeds": config.seeds,
        "classes": classes,
        "subsets": subsets,
        "rows": [
            summarize_row(
                row,
                tested[row],
                tested[base],
                subsets,
                head_size(spec, len(classes)),
                tuning.get(row, {}),
            )
            for row, spec in rows.items()
        ],
        "protocol": protocol,
    }
    write_json(output / "ablation.json", summary)
    table = markdown(summary)
    with written_whole(output / "ablation.md", "w") as file:
        file.write(table)
    plot(summary, output / "ablation.png")
    print(f"{table}\n{output}/ablation.json, .md, .png")
    return 0
