"""What score files say together: accuracies with intervals, comparisons, fusion.

    python scripts/summarize.py results/*.npz
    python scripts/summarize.py RGB.npz FLOW.npz --fusion-weights 1 1.5
    python scripts/summarize.py RGB.npz FLOW.npz --search HELD_OUT_RGB.npz HELD_OUT_FLOW.npz
    python scripts/summarize.py results/*.npz --json summary.json --plot summary.png

Files of one network tested in one way on several splits are one run, by the JSON beside each file,
or without one by its name. Each run gets top-1, top-3, mean class accuracy and, where the file
holds clips, clip-level top-1, with 95 % bootstrap intervals over videos; over splits mean, standard
deviation and the mean's interval. Any two runs of the same videos are compared by McNemar's exact
test. With weights, the runs are streams, in the order of their first files, and are fused: each
score vector divided by its L2 norm, times its stream's weight, added.

--search finds the weights of each split on held-out videos: videos on which neither the networks
were trained nor the split is tested. Make it a `val` list in another settings folder, test the
same checkpoints on it (--settings DIR --results DIR), and give one file for each score file, in
the same order.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine import UsageError
from engine.analysis.fusion import Fusion, fuse_runs, search_and_fuse
from engine.analysis.statistics import LEVEL, RESAMPLES, SEED
from engine.analysis.summary import compare_runs, summarize_fusion, summarize_run
from engine.cli import run
from engine.files import write_json
from engine.flag_types import not_below_zero
from engine.report import MAX_TABLE_CLASSES
from engine.testing.score_files import Run, ScoreFile, group_runs, read_scores

TITLES = {
    "top1": "top-1",
    "top3": "top-3",
    "mean_class_accuracy": "mean class",
    "clip_top1": "clip top-1",
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.npz", help="score files")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--fusion-weights", type=not_below_zero, nargs="+", metavar="W", help="one for each run"
    )
    weights.add_argument(
        "--search", type=Path, nargs="+", metavar="FILE.npz", help="held-out score files"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw accuracies and gains")
    args = parser.parse_args(argv)
    if args.plot and args.plot.suffix != ".png":
        parser.error(f"--plot {args.plot}: the name should end in .png")
    for output in filter(None, (args.json, args.plot)):
        beside = {path.with_suffix(output.suffix).resolve() for path in args.files}
        if output.resolve() in beside:
            parser.error(f"{output} belongs to a score file; choose another name")
    return args


def fusion_of(
    args: argparse.Namespace, files: Sequence[ScoreFile], runs: Sequence[Run]
) -> Fusion | None:
    """The fusion that was asked for; raises UsageError if the flags do not fit the files."""
    if not args.fusion_weights and not args.search:
        return None
    names = "; ".join(run.name for run in runs)
    if len(runs) < 2:
        raise UsageError(f"fusion needs two runs or more; these files are one: {names}")
    if args.search:
        if len(args.search) != len(files):
            raise UsageError(
                f"--search: {len(args.search)} held-out files for {len(files)} score files; give "
                "one for each, in the same order"
            )
        held_out = zip(files, map(read_scores, args.search), strict=True)
        return search_and_fuse(runs, {file.path: held for file, held in held_out})
    if len(args.fusion_weights) != len(runs) or not any(args.fusion_weights):
        raise UsageError(
            f"--fusion-weights: {len(args.fusion_weights)} weights for {len(runs)} runs; give one "
            f"for each, not all 0: {names}"
        )
    return fuse_runs(runs, args.fusion_weights)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(
            f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def print_run(letter: str, summary: dict) -> None:
    """A run: a line for each split, and for all."""
    splits = summary["splits"]
    metrics = [m for m in TITLES if any(m in split for split in splits)]
    rows = [["split", "videos", *(f"{TITLES[m]} [95 %]" for m in metrics)]]
    for split in splits:
        cells = [_cell(split.get(metric)) for metric in metrics]
        rows.append([str(split["split"]), str(split["videos"]), *cells])
    over = summary.get("over_splits")
    if over:
        rows.append(["mean", "", *(_cell(over.get(metric)) for metric in metrics)])
        deviations = [f"{over[m]['sd']:.2f}" if m in over else "" for m in metrics]
        rows.append(["sd", "", *deviations])
    print(f"\n{letter}  {summary['name']}\n{table(rows)}")
    for split in splits:
        if split["unscored"]:
            print(f"split {split['split']}: {split['unscored']} videos not scored, count as wrong")
        for metric in ("top1", "top3"):
            if "exact" in split[metric]:
                low, high = split[metric]["exact"]
                print(
                    f"split {split['split']}: {split[metric]['value']:g} % leaves a bootstrap "
                    f"nothing to draw; exact interval of {TITLES[metric]} [{low:.2f}, {high:.2f}]"
                )
    if summary.get("videos_in_several_splits"):
        print(
            f"{summary['videos_in_several_splits']} videos are tested in several splits: the "
            "mean's interval, which takes splits as independent, is too narrow"
        )


def _cell(entry: dict | None) -> str:
    if entry is None:
        return ""
    if entry["interval"] is None:
        return f"{entry['value']:.2f}"
    low, high = entry["interval"]
    return f"{entry['value']:6.2f} [{low:6.2f}, {high:6.2f}]"


def print_comparisons(rows: Sequence[dict], refused: Sequence[str]) -> None:
    """McNemar's tests; runs are named by their letters."""
    if rows:
        print("\nMcNemar's exact test: videos that only one of two runs calls right")
        titles = ["runs", "split", "videos", "only first", "only second", "p", "p (Holm)"]
        lines = [
            [
                f"{_letter(row['first'])} and {_letter(row['second'])}",
                *(str(row[key]) for key in ("split", "videos", "only_first", "only_second")),
                f"{row['p']:.3g}",
                f"{row['p_holm']:.3g}" if "p_holm" in row else "",
            ]
            for row in rows
        ]
        print(table([titles, *lines]))
    for reason in refused:
        print(f"not compared: {reason}")


def _letter(place: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    number, letter = divmod(place, 26)
    return chr(ord("A") + letter) + (str(number) if number else "")


def print_fusion(summary: dict) -> None:
    """The weights, and the classes that fusion changes most."""
    print("\nFusion: each score vector divided by its L2 norm, times its stream's weight, added")
    for split, weights in summary["weights"].items():
        line = f"split {split}: weights " + " : ".join(f"{weight:g}" for weight in weights)
        found = summary["held_out"].get(split)
        if found:
            line += (
                f", found on {found['videos']} held-out videos (top-1 there {found['top1']:.2f} %,"
                f" with equal weights {found['top1_equal_weights']:.2f} %)"
            )
        print(line)
    streams = [f"stream {number}" for number in range(1, len(summary["streams"]) + 1)]
    ranked = sorted(summary["classes"], key=lambda row: -row["gain"])
    rows = [
        [
            row["class"],
            str(row["videos"]),
            *(f"{share:.2f}" for share in (*row["streams"], row["fused"])),
            f"{row['gain']:+.2f}",
        ]
        for row in ranked
    ]
    if len(rows) > MAX_TABLE_CLASSES:
        half = MAX_TABLE_CLASSES // 2
        dots = ["...", *[""] * (len(rows[0]) - 1)]
        rows = [*rows[:half], dots, *rows[-half:]]
    print("top-1 by class over all splits, and the gain of fusion on the first stream")
    print(table([["class", "videos", *streams, "fused", "gain"], *rows]))


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    files = [read_scores(path) for path in args.files]
    runs = group_runs(files)
    fusion = fusion_of(args, files, runs)
    if fusion:
        runs = [*runs, fusion.fused]
    comparisons, refused = compare_runs(runs)
    summary = {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": SEED,
        "runs": [summarize_run(run) for run in runs],
        "mcnemar": comparisons,
        "not_compared": refused,
    }
    if fusion:
        summary["fusion"] = summarize_fusion(fusion)
    for place, entry in enumerate(summary["runs"]):
        print_run(_letter(place), entry)
    print_comparisons(comparisons, refused)
    if fusion:
        print_fusion(summary["fusion"])
    if args.json:
        write_json(args.json, summary)
    if args.plot:
        from engine.plots import plot_summary  # matplotlib is slow to import

        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot_summary(summary, args.plot)
    return 0


if __name__ == "__main__":
    run(main)
