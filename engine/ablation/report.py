"""What an ablation found: one table, its JSON, its Markdown, its picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine import UsageError
from engine.ablation.protocol import NO_CLASS, Row
from engine.analysis.statistics import bootstrap_interval
from engine.testing.token_order import NORMAL


def hit_rates(
    finals: Sequence[Mapping],
    order: str,
    classes: Sequence[int] | None = None,
    swapped: bool = False,
) -> dict[int, np.ndarray]:
    """Split -> whether each seed called each video right, bool (seeds, videos of the classes).

    `swapped`, for two classes: whether it was called by the other's name.
    """
    rates = {}
    for split in sorted({final["split"] for final in finals}):
        own = sorted((f for f in finals if f["split"] == split), key=lambda final: final["seed"])
        labels = np.array(own[0]["labels"])
        chosen = np.isin(labels, classes) if classes is not None else np.ones(len(labels), bool)
        called = np.array([final["called"][order] for final in own])
        wanted = sum(classes) - labels if swapped else labels
        rates[split] = (called == wanted)[:, chosen]
    return rates


def mean_and_sd(hits: Mapping[int, np.ndarray]) -> dict:
    """Top-1, percent: of each split and over splits; deviations are those of the seeds.

    Over splits: each seed's mean over the splits, and the mean and deviation of those.
    """
    by_split = {split: 100 * own.mean(axis=1) for split, own in hits.items()}
    seeds = np.mean(list(by_split.values()), axis=0)
    return _spread(seeds) | {"splits": {split: _spread(own) for split, own in by_split.items()}}


def _spread(values: np.ndarray) -> dict:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {
        "mean": round(float(values.mean()), 2),
        "sd": None if deviation is None else round(deviation, 2),
        "values": [round(float(value), 2) for value in values],
    }


def paired_gain(hits: Mapping[int, np.ndarray], base: Mapping[int, np.ndarray]) -> dict:
    """Gain in top-1 on the same videos, points, with a 95 % bootstrap interval over videos.

    A video counts with the share of seeds that call it right; videos are drawn within splits.
    """
    gains = [100 * (hits[split].mean(axis=0) - base[split].mean(axis=0)) for split in hits]

    def statistic(*drawn: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([part.mean(axis=axis) for part in drawn], axis=0)

    found = {"points": round(float(np.mean([gain.mean() for gain in gains])), 2)}
    interval = bootstrap_interval(gains, statistic)
    if interval is None:
        return found
    return found | {"interval": [round(float(end), 2) for end in interval]}


def confusion(finals: Sequence[Mapping], order: str, classes: int) -> list[list[int]]:
    """Scored videos by class and by what they were called, over all splits and seeds."""
    matrix = np.zeros((classes, classes), np.int64)
    for final in finals:
        labels, called = np.array(final["labels"]), np.array(final["called"][order])
        np.add.at(matrix, (labels[called != NO_CLASS], called[called != NO_CLASS]), 1)
    return matrix.tolist()


def summarize_row(
    row: Row,
    finals: Sequence[Mapping],
    base: Sequence[Mapping],
    subsets: Mapping[str, Sequence[int] | None],
    classes: int,
    size: tuple[int, float],
    tuning: Mapping[int, dict],
) -> dict:
    """A row of the table.

    Args:
        finals, base: its tested networks, and those that it is compared with.
        subsets: names of sets of classes; None for all classes.
        size: parameters and GMACs of the head.
        tuning: of each split, what was tried and chosen.
    """
    orders = list(finals[0]["called"])
    trained = [final["train_top1"] for final in finals if final.get("train_top1") is not None]
    return {
        "row": row.key,
        "title": row.title,
        "paper": row.paper,
        "parameters": size[0],
        "gmacs": size[1],
        "train_top1": round(float(np.mean(trained)), 2) if trained else None,
        "test": {
            order: {
                name: mean_and_sd(hit_rates(finals, order, chosen))
                for name, chosen in subsets.items()
            }
            for order in orders
        },
        "swapped": {
            order: {
                name: mean_and_sd(hit_rates(finals, order, chosen, swapped=True))
                for name, chosen in subsets.items()
                if chosen is not None and len(chosen) == 2
            }
            for order in orders
        },
        "gain": paired_gain(hit_rates(finals, orders[0]), hit_rates(base, orders[0])),
        "confusion": {order: confusion(finals, order, classes) for order in orders},
        "tuning": dict(tuning),
    }


def subsets_of(texts: Sequence[str], classes: list[str]) -> dict[str, list[int] | None]:
    """NAME=CLASS,CLASS -> the classes' numbers; beside them "other", and "top-1" of all."""
    subsets: dict[str, list[int] | None] = {"top-1": None}
    for text in texts:
        name, _, names = text.partition("=")
        unknown = [own for own in names.split(",") if own not in classes]
        if unknown:
            raise UsageError(f"--subset {text}: no class {unknown[0]}; there are {classes}")
        subsets[name] = [classes.index(own) for own in names.split(",")]
    chosen = {label for own in subsets.values() for label in own or []}
    rest = sorted(set(range(len(classes))) - chosen)
    return subsets | ({"other classes": rest} if chosen and rest else {})


def markdown(summary: Mapping) -> str:
    """The tables: accuracies are mean and standard deviation over seeds, percent.

    The first is about tokens in the first order; of other orders, a table for each set of classes.
    """
    rows = summary["rows"]
    order, *others = rows[0]["test"]
    sets = list(rows[0]["test"][order])
    splits = list(rows[0]["test"][order][sets[0]]["splits"])
    show_splits = len(splits) > 1
    from_paper = any(row["paper"] is not None for row in rows)
    head = ["head", "parameters (M)", "GMACs", "training"]
    head += [f"split {split}" for split in splits] if show_splits else []
    head += [name if order == NORMAL else f"{name}, {order}" for name in sets]
    head += [f"gain on {summary['base']} [95 %]"]
    head += ["paper (HMDB51)"] if from_paper else []
    lines = []
    for row in rows:
        cells = [row["title"], f"{row['parameters'] / 1e6:.3f}", f"{row['gmacs']:.3g}"]
        cells.append("" if row["train_top1"] is None else f"{row['train_top1']:.1f}")
        found = row["test"][order]
        by_split = found[sets[0]]["splits"].values()
        cells += [_accuracy(own) for own in by_split] if show_splits else []
        cells += [_accuracy(found[name]) for name in sets]
        cells.append(_gain(row, summary["base"]))
        if from_paper:
            cells.append("" if row["paper"] is None else f"{row['paper']:.2f}")
        lines.append(cells)
    tables = [_table(head, lines)]
    for kind, title in (("test", "{}"), ("swapped", "{}, called by the other's name")):
        for name in rows[0][kind][order] if others else []:
            lines = [
                [row["title"], *(_accuracy(found[name]) for found in row[kind].values())]
                for row in rows
            ]
            head = [f"{title.format(name)}, tokens in order", order, *others]
            tables.append(_table(head, lines))
    return "\n".join(tables)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))


def _accuracy(entry: Mapping) -> str:
    return f"{entry['mean']:.2f}" + ("" if entry["sd"] is None else f" ± {entry['sd']:.2f}")


def _gain(row: Mapping, base: str) -> str:
    if row["row"] == base:
        return ""
    gain = row["gain"]
    ends = gain.get("interval")
    return f"{gain['points']:+.2f}" + (f" [{ends[0]:+.2f}, {ends[1]:+.2f}]" if ends else "")


def plot(summary: Mapping, path: Path) -> None:
    """A line for each head: every tested network, and their mean; the paper's as a cross."""
    import matplotlib.pyplot as plt  # slow to import

    from engine.plots import save_figure

    rows = summary["rows"]
    order = next(iter(rows[0]["test"]))
    sets = list(rows[0]["test"][order])
    size = (4.5 + 3.5 * len(sets), 1.4 + 0.45 * len(rows))
    figure, axes = plt.subplots(1, len(sets), figsize=size, squeeze=False, layout="constrained")
    for place, name in enumerate(sets):
        axis = axes[0, place]
        for line, row in enumerate(rows):
            entry = row["test"][order][name]
            for number, (split, own) in enumerate(entry["splits"].items()):
                spread = np.linspace(-0.2, 0.2, len(own["values"]))
                label = f"split {split}, a network each" if line == 0 else None
                axis.scatter(own["values"], line + spread, 14, f"C{number}", label=label)
            mean = {"color": "black", "label": "mean" if line == 0 else None}
            axis.plot([entry["mean"]] * 2, [line - 0.35, line + 0.35], **mean)
            if row["paper"] is not None and place == 0:
                label = "paper, on HMDB51" if line == 0 else None
                axis.scatter(row["paper"], line, 24, "grey", marker="x", label=label)
        axis.set_yticks(range(len(rows)), [row["title"] for row in rows] if place == 0 else [])
        label = "top-1, %" if name == "top-1" else f"top-1, {name}, %"
        axis.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        axis.grid(alpha=0.3, axis="x")
    axes[0, 0].legend(fontsize=7)
    save_figure(figure, path, dpi=100)
