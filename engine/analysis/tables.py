"""Tables for people, as text and as Markdown; the printed tables of a summary of score files."""

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from engine.analysis.summary import METRICS
from engine.testing.report import MAX_TABLE_CLASSES


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "plain") -> str:
    """Columns under their titles: the first to the left, the others to the right."""
    align = ["left", *["right"] * (len(head) - 1)]
    return tabulate(rows, head, style, colalign=align, disable_numparse=True)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown, without a line break at the end."""
    return text_table(head, rows, "pipe")


def print_tables(summary: Mapping) -> None:
    """Prints what `summarize_runs` returns; in comparisons a letter stands for each run."""
    for place, run in enumerate(summary["runs"]):
        print(f"\n{_letter(place)}  {run['name']}")
        _print_run(run)
    if summary["mcnemar"]:
        print("\nMcNemar's exact test: videos that only one of two runs predicts correctly")
        print(_comparisons(summary["mcnemar"]))
    for reason in summary["not_compared"]:
        print(f"not compared: {reason}")
    if "fusion" in summary:
        _print_fusion(summary["fusion"])


def _print_run(run: Mapping) -> None:
    # a line for each split, and for all
    splits, over = run["splits"], run.get("over_splits")
    metrics = [m for m in METRICS if any(m in split for split in splits)]
    rows = [[split["split"], split["videos"], *_accuracies(split, metrics)] for split in splits]
    if over:
        deviations = [f"{over[m]['sd']:.2f}" if m in over else "" for m in metrics]
        rows += [["mean", "", *_accuracies(over, metrics)], ["sd", "", *deviations]]
    print(text_table(["split", "videos", *(f"{METRICS[m]} [95 %]" for m in metrics)], rows))
    # what the table does not say
    for split in splits:
        if split["unscored"]:
            print(f"split {split['split']}: {split['unscored']} videos not scored, count as wrong")
        for metric in ("top1", "top3"):
            if "exact" in split[metric]:
                low, high = split[metric]["exact"]
                print(
                    f"split {split['split']}: at {split[metric]['value']:g} % all bootstrap samples"
                    f" are equal; exact interval of {METRICS[metric]} [{low:.2f}, {high:.2f}]"
                )
    if run.get("videos_in_several_splits"):
        print(
            f"{run['videos_in_several_splits']} videos are tested in several splits: the mean's "
            "interval, which takes splits as independent, is too narrow"
        )


def _accuracies(entry: Mapping, metrics: Sequence[str]) -> list[str]:
    """A cell for each metric: the accuracy and, if there is one, its interval."""
    cells = []
    for value in (entry.get(metric) for metric in metrics):
        cells.append("" if value is None else f"{value['value']:.2f}")
        if value and value["interval"]:
            low, high = value["interval"]
            cells[-1] += f" [{low:6.2f}, {high:6.2f}]"
    return cells


def _comparisons(rows: Sequence[Mapping]) -> str:
    head = ["runs", "split", "videos", "only first", "only second", "p", "p (Holm)"]
    cells = []
    for row in rows:
        pair = f"{_letter(row['first'])} and {_letter(row['second'])}"
        counts = [row[key] for key in ("split", "videos", "only_first", "only_second")]
        chances = [f"{row[key]:.3g}" if key in row else "" for key in ("p", "p_holm")]
        cells.append([pair, *counts, *chances])
    return text_table(head, cells)


def _letter(place: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    number, letter = divmod(place, 26)
    return chr(ord("A") + letter) + (str(number) if number else "")


def _print_fusion(fusion: Mapping) -> None:
    # the weights
    print("\nFusion: each score vector divided by its L2 norm, times its stream's weight, added")
    for split, weights in fusion["weights"].items():
        line = f"split {split}: weights " + " : ".join(f"{weight:g}" for weight in weights)
        found = fusion["held_out"].get(split)
        if found:
            line += (
                f", found on {found['videos']} held-out videos (top-1 there {found['top1']:.2f} %,"
                f" with equal weights {found['top1_equal_weights']:.2f} %)"
            )
        print(line)
    # the classes that fusion changes most
    streams = [f"stream {number}" for number, _ in enumerate(fusion["streams"], 1)]
    rows = []
    for row in sorted(fusion["classes"], key=lambda row: -row["gain"]):
        shares = [f"{share:.2f}" for share in (*row["streams"], row["fused"])]
        rows.append([row["class"], row["videos"], *shares, f"{row['gain']:+.2f}"])
    if len(rows) > MAX_TABLE_CLASSES:
        half = MAX_TABLE_CLASSES // 2
        rows = [*rows[:half], ["..."], *rows[-half:]]
    print("top-1 by class over all splits, and the gain of fusion on the first stream")
    print(text_table(["class", "videos", *streams, "fused", "gain"], rows))
