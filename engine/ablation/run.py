"""Heads x seeds x splits, one table: on token caches, or of whole networks.

python scripts/ablate.py --cache DIR --preset table1
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from tqdm import tqdm

from engine import UsageError
from engine.ablation.heads import Setting, head_size, recipe_flags
from engine.ablation.protocol import AVERAGE, HeadRow, Ledger, rows_of
from engine.ablation.report import markdown, plot, read_finals, subsets_of, summarize_row
from engine.ablation.sweeps import TokenSweep, kind_of, network_final, views_elsewhere
from engine.config import AblationConfig, TrainingConfig
from engine.data import open_split
from engine.distributed import choose_device
from engine.files import resolve, write_json, written_whole
from engine.speed import choose_speed
from engine.tokens.cache import TokenCache, open_cache
from engine.tokens.joint import join_caches
from models import ArchSpec, get_arch

OUTPUT = "results/ablation"
Rows = Mapping[HeadRow, ArchSpec]


def ablate_tokens(
    config: AblationConfig, folders: Sequence[Path], flow_folders: Sequence[Path] = ()
) -> int:
    """Tunes, trains and tests heads on caches, one for each split, and writes the report.

    `flow_folders`: caches to be joined with those, which are RGB's, in the same order.
    """
    # caches, rows
    caches = _open_caches(folders, flow_folders)
    metadata = caches[0].metadata
    maps = caches[0].train.tokens[0].ndim == 5
    at = metadata["at"]
    if config.stage_lr and at is None:
        raise UsageError("--stage-lr is for caches of maps in front of a stage, which learns")
    base = replace(get_arch(metadata["arch"]), streams=2 if flow_folders else 1)
    rows = rows_of(config.preset, config.heads, base, maps, at is not None)
    check_report(config, rows, metadata["class_names"])
    # protocol
    protocol = {key: metadata[key] for key in ("dataset", "tokens", "views")} | {
        "weights": metadata["weights"]["sha256"],
        "group": config.group and config.group.pattern,
        "folds": config.folds,
        "batch_size": config.batch_size,
        "lists": {c.metadata["split"]: c.metadata["fingerprint"] for c in caches},
    }
    device = choose_device(config.device)
    speed = choose_speed(config.computing, device)
    # earlier ledgers do not say these
    protocol |= {"amp": None if speed.amp == "off" else speed.amp, "stage_lr": config.stage_lr}
    ledger = Ledger(resolve(config.output, OUTPUT) / "runs.jsonl", protocol)
    sweep = partial(TokenSweep, ledger, config, device=device, speed=speed)
    if config.leave_one_out:
        elsewhere = [views_elsewhere(cache, caches) for cache in caches]
        sweeps = [sweep(c, test=own) for c, (_, own) in zip(caches, elsewhere, strict=True)]
        tuned_on = [split for split, _ in elsewhere]
    else:
        sweeps = [sweep(cache) for cache in caches]
        tuned_on = [own.split for own in sweeps]
    # tune, train, test
    finals: dict[HeadRow, list[dict]] = {row: [] for row in rows}
    tuning: dict[HeadRow, dict] = {row: {} for row in rows}
    total = len(sweeps) * len(rows) * (sweeps[0].least_trainings + config.seeds)
    with tqdm(total=total, dynamic_ncols=True, unit="training") as bar:
        for row, spec in rows.items():
            for own in sweeps:
                bar.set_description(f"split {own.split}, {row.title}")
                setting, tried = own.tune(row, spec, bar.update)
                tuning[row][own.split] = {"chosen": vars(setting), "tried": tried}
            for (own, split), seed in product(
                zip(sweeps, tuned_on, strict=True), range(config.seeds)
            ):
                setting = Setting(**tuning[row][split]["chosen"])
                finals[row].append(own.final(row, spec, setting, seed))
                bar.update()
    if not config.tuned:
        content = {row.key: splits for row, splits in tuning.items()}
        write_json(ledger.path.parent / "tuning.json", content)
    if config.seeds == 0:
        return report_tuning(config, tuning)
    return report(config, ledger, rows, finals, tuning, metadata["class_names"])


def _open_caches(folders: Sequence[Path], flow_folders: Sequence[Path]) -> list[TokenCache]:
    """One for each split, of one dataset and network; raises UsageError if they are not."""
    caches = [open_cache(folder) for folder in folders]
    if flow_folders:
        flows = map(open_cache, flow_folders)
        caches = [join_caches(*pair) for pair in zip(caches, flows, strict=True)]
    first = caches[0].metadata
    for other in caches[1:]:
        if any(other.metadata[key] != first[key] for key in ("tokens", "dataset")):
            raise UsageError(f"{other.folder} is not of the same dataset and network")
    if len({cache.metadata["split"] for cache in caches}) < len(caches):
        raise UsageError("two of the caches are of one split")
    return caches


def report_tuning(config: AblationConfig, tuning: Mapping[HeadRow, Mapping[int, dict]]) -> int:
    """Prints what was chosen as flags; returns the exit code."""
    for row, splits in tuning.items():
        for split, entry in splits.items():
            chosen = entry["chosen"]
            top1 = next(t["top1"] for t in entry["tried"] if t.items() >= chosen.items())
            script = "two_stream_bert2.py" if row.optimizer == "adamw" else "two_stream2.py"
            flags = " ".join(recipe_flags(chosen, config.batch_size))
            print(f"split {split}, {row.title}: {top1:.2f} % held out; {script} --cache {flags}")
    return 0


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
    # rows
    training = trainings["adamw"]
    base, data = get_arch(training.arch), training.data
    rows = rows_of(config.preset, config.heads, base, maps=True)
    for spec in rows.values():
        if get_arch(spec.name) != spec:  # the name is all that a training gets
            raise UsageError(
                f"{spec.name} is the published name of another network; give an --arch with the "
                "reduction that it has"
            )
    classes = open_split(data, base, ("val",)).class_names
    check_report(config, rows, classes)
    # protocol
    protocol = {"dataset": data.dataset, "arch": training.arch, "flags": list(flags)}
    given = {"settings": data.settings, "frames": data.frames}
    protocol |= {key: str(resolve(path, "")) for key, path in given.items() if path}
    protocol |= {"device": data.device} if data.device else {}
    ledger = Ledger(resolve(config.output, OUTPUT) / "runs.jsonl", protocol)
    # train, test
    finals: dict[HeadRow, list[dict]] = {row: [] for row in rows}
    for (row, spec), split, seed in product(rows.items(), splits, range(config.seeds)):
        training = trainings[row.optimizer]
        data = replace(training.data, split=split)
        training = replace(training, data=data, arch=spec.name, seed=seed)
        finals[row].append(network_final(ledger, row, training, config.time_order))
    return report(config, ledger, rows, finals, {}, classes)


def check_report(config: AblationConfig, rows: Rows, classes: list[str]) -> None:
    """Raises UsageError for what the report cannot say, before hours of training."""
    subsets_of(config.subset, classes)
    keys = [row.key for row in rows]
    if config.base not in keys and config.base != AVERAGE:
        raise UsageError(f"--base {config.base} is none of {', '.join(keys)}")


def report(
    config: AblationConfig,
    ledger: Ledger,
    rows: Rows,
    finals: Mapping[HeadRow, Sequence[dict]],
    tuning: Mapping[HeadRow, dict],
    classes: list[str],
) -> int:
    """Writes ablation.json, .md and .png, and prints the table; returns the exit code.

    The names say the kind of test, if it is one: ablation_4_shots.json.
    """
    # score files -> numbers
    output = ledger.path.parent
    tested = {row: read_finals(output, records) for row, records in finals.items()}
    base = next((row for row in rows if row.key == config.base), next(iter(rows)))
    subsets = subsets_of(config.subset, classes)
    sizes = {row: head_size(spec, len(classes)) for row, spec in rows.items()}
    summary = {
        "base": base.key,
        "seeds": config.seeds,
        "classes": classes,
        "subsets": subsets,
        "rows": [
            summarize_row(row, own, tested[base], subsets, sizes[row], tuning.get(row, {}))
            for row, own in tested.items()
        ],
        "protocol": ledger.protocol,
    }
    # JSON, table, picture
    stem = output / f"ablation{kind_of(config)}"
    write_json(stem.with_suffix(".json"), summary)
    table = markdown(summary)
    with written_whole(stem.with_suffix(".md"), "w") as file:
        file.write(table)
    plot(summary, stem.with_suffix(".png"))
    print(f"{table}\n{stem}.json, .md, .png")
    return 0
