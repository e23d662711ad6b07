"""What an ablation found: one table, its JSON, its Markdown, its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import UsageError
from engine.ablation.protocol import HeadRow
from engine.analysis.statistics import bootstrap_interval
from engine.analysis.tables import markdown_table
from engine.metrics import confusion_matrix, topk_hits
from engine.testing.score_files import ScoreFile, read_scores
from engine.testing.token_order import NORMAL

Classes = Sequence[int] | None  # None: all
Hits = Mapping[int, np.ndarray]  # split -> was a network correct, bool (seeds, videos)


@dataclass(frozen=True)
class Final:
    """A trained network's tests: order of the tokens -> its scores, all of the same videos.

    `train_top1`: of the training list, percent; None where it was not tested.
    """

    split: int
    seed: int
    files: Mapping[str, ScoreFile]
    train_top1: float | None = None


def read_finals(folder: Path, records: Sequence[Mapping]) -> list[Final]:
    """The tests that the ledger in `folder` records; raises DataError for a damaged file."""
    finals = []
    for record in records:
        files = {order: read_scores(folder / name) for order, name in record["scores"].items()}
        finals.append(Final(record["split"], record["seed"], files, record.get("train_top1")))
    return finals


def hit_rates(
    finals: Sequence[Final], order: str, classes: Classes = None, swapped: bool = False
) -> Hits:
    """Of the videos of the classes. `swapped`, for two: whether the other one was predicted."""
    rates: dict[int, list[np.ndarray]] = {}
    for final in sorted(finals, key=lambda final: (final.split, final.seed)):
        scores, labels = final.files[order].scores, final.files[order].labels
        if classes is not None:
            chosen = np.isin(labels, classes)
            scores, labels = scores[chosen], labels[chosen]
        wanted = sum(classes) - labels if swapped else labels
        rates.setdefault(final.split, []).append(topk_hits(scores, wanted, 1))
    return {split: np.stack(hits) for split, hits in rates.items()}


def mean_and_sd(hits: Hits) -> dict:
    """Top-1, percent: of each split and over splits; deviations are those of the seeds.

    Over splits: each seed's mean over the splits, and the mean and deviation of those.
    """
    by_split = {split: 100 * own.mean(axis=1) for split, own in hits.items()}
    seeds = np.mean(list(by_split.values()), axis=0)
    return _spread(seeds) | {"splits": {split: _spread(own) for split, own in by_split.items()}}


def _spread(values: np.ndarray) -> dict:
    sd = round(float(values.std(ddof=1)), 2) if len(values) > 1 else None
    return {
        "mean": round(float(values.mean()), 2),
        "sd": sd,
        "values": [round(float(value), 2) for value in values],
    }


def paired_gain(hits: Hits, base: Hits) -> dict:
    """Gain in top-1 on the same videos, points, with a 95 % bootstrap interval over videos.

    A video counts with the share of seeds whose networks are correct; videos are drawn within
    splits.
    """
    gains = [100 * (hits[split].mean(axis=0) - base[split].mean(axis=0)) for split in hits]

    def mean(*drawn: np.ndarray) -> np.ndarray:
        return np.mean([own.mean(axis=-1) for own in drawn], axis=0)

    found = {"points": round(float(mean(*gains)), 2)}
    interval = bootstrap_interval(gains, mean)
    return found if interval is None else found | {"interval": interval.round(2).tolist()}


def confusion(finals: Sequence[Final], order: str) -> list[list[int]]:
    """Scored videos by class and by prediction, over all splits and seeds."""
    files = [final.files[order] for final in finals]
    return sum(confusion_matrix(file.scores, file.labels) for file in files).tolist()


def summarize_row(
    row: HeadRow,
    finals: Sequence[Final],
    base: Sequence[Final],
    subsets: Mapping[str, Classes],
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
    # what there is to say
    orders = list(finals[0].files)
    pairs = {name: own for name, own in subsets.items() if own is not None and len(own) == 2}
    trained = [final.train_top1 for final in finals if final.train_top1 is not None]

    def test(sets: Mapping[str, Classes], swapped: bool = False) -> dict:
        return {
            order: {
                name: mean_and_sd(hit_rates(finals, order, classes, swapped))
                for name, classes in sets.items()
            }
            for order in orders
        }

    # the row
    return {
        "row": row.key,
        "title": row.title,
        "paper": row.paper,
        "parameters": size[0],
        "gmacs": size[1],
        "train_top1": round(float(np.mean(trained)), 2) if trained else None,
        "test": test(subsets),
        "swapped": test(pairs, swapped=True),
        "gain": paired_gain(hit_rates(finals, orders[0]), hit_rates(base, orders[0])),
        "confusion": {order: confusion(finals, order) for order in orders},
        "tuning": dict(tuning),
    }


def subsets_of(texts: Sequence[str], classes: list[str]) -> dict[str, Classes]:
    """NAME=CLASS,CLASS -> the classes' numbers; beside them "other", and "top-1" of all."""
    subsets: dict[str, Classes] = {"top-1": None}
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
    from_paper = any(row["paper"] is not None for row in rows)
    lines = [_main_cells(row, order, summary["base"], from_paper) for row in rows]
    tables = [markdown_table(list(lines[0]), [list(line.values()) for line in lines])]
    for kind, title in (("test", "{}"), ("swapped", "{}, predicted as the other class")):
        for name in rows[0][kind][order] if others else []:
            cells = [
                [row["title"], *(_accuracy(found[name]) for found in row[kind].values())]
                for row in rows
            ]
            head = [f"{title.format(name)}, tokens in order", order, *others]
            tables.append(markdown_table(head, cells))
    return "\n\n".join(tables) + "\n"


def _main_cells(row: Mapping, order: str, base: str, from_paper: bool) -> dict[str, str]:
    """A line of the first table: title -> cell."""
    found, trained, paper = row["test"][order], row["train_top1"], row["paper"]
    cells = {
        "head": row["title"],
        "parameters (M)": f"{row['parameters'] / 1e6:.3f}",
        "GMACs": f"{row['gmacs']:.3g}",
        "training": "" if trained is None else f"{trained:.1f}",
    }
    splits = next(iter(found.values()))["splits"]
    if len(splits) > 1:
        cells |= {f"split {split}": _accuracy(own) for split, own in splits.items()}
    for name, own in found.items():
        cells[name if order == NORMAL else f"{name}, {order}"] = _accuracy(own)
    cells[f"gain on {base} [95 %]"] = "" if row["row"] == base else _gain(row["gain"])
    if from_paper:
        cells["paper (HMDB51)"] = "" if paper is None else f"{paper:.2f}"
    return cells


def _accuracy(entry: Mapping) -> str:
    return f"{entry['mean']:.2f}" + ("" if entry["sd"] is None else f" ± {entry['sd']:.2f}")


def _gain(gain: Mapping) -> str:
    ends = gain.get("interval")
    return f"{gain['points']:+.2f}" + (f" [{ends[0]:+.2f}, {ends[1]:+.2f}]" if ends else "")


def plot(summary: Mapping, path: Path) -> None:
    """A line for each head: every tested network, and their mean; the paper's as a cross."""
    import matplotlib.pyplot as plt  # slow to import

    from engine.plots import save_figure

    rows = summary["rows"]
    order, lines = next(iter(rows[0]["test"])), np.arange(len(rows))
    sets, paper = list(rows[0]["test"][order]), np.array([row["paper"] for row in rows], float)
    size = (4.5 + 3.5 * len(sets), 1.4 + 0.45 * len(rows))
    figure, axes = plt.subplots(1, len(sets), figsize=size, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], sets, strict=True):
        entries = [row["test"][order][name] for row in rows]
        for number, split in enumerate(entries[0]["splits"]):
            values = np.array([entry["splits"][split]["values"] for entry in entries])
            places = lines[:, None] + np.linspace(-0.2, 0.2, values.shape[1])
            axis.scatter(values, places, 14, f"C{number}", label=f"split {split}, a network each")
        means = [entry["mean"] for entry in entries]
        axis.vlines(means, lines - 0.35, lines + 0.35, "black", label="mean")
        if name == sets[0] and np.isfinite(paper).any():
            axis.scatter(paper, lines, 24, "grey", marker="x", label="paper, on HMDB51")
        axis.set_yticks(lines, [row["title"] for row in rows] if name == sets[0] else [])
        label = "top-1, %" if name == "top-1" else f"top-1, {name}, %"
        axis.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        axis.grid(alpha=0.3, axis="x")
    axes[0, 0].legend(fontsize=7)
    save_figure(figure, path, dpi=100)
