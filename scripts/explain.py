"""Why a network gives a video its class: attention, occlusion in time, Grad-CAM (docs/EXPLAIN.md).

    python scripts/explain.py VIDEO... --run checkpoint/mine_rgb_I3D64f_bert2_split1
    python scripts/explain.py VIDEO --checkpoint weights/i3d-rgb-kinetics400.pt --at 2.5
    python scripts/explain.py --mistakes 5 --run DIR
    python scripts/explain.py --faithfulness --run DIR

A VIDEO is a file, a folder of them, or a pattern. For each video one clip is explained: a PNG, a
short MP4, and an entry in explanations.json, under --output. --mistakes explains the most certain
wrong answers of a test, --faithfulness measures on a test whether deleting the tokens that the
class token attends to most costs more than deleting random ones.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from tqdm import tqdm

from datasets import DataError
from datasets.files import check_writable
from engine import UsageError, cli
from engine.analysis.tables import text_table
from engine.applying.networks import TrainedNetwork
from engine.applying.predictor import load_predictor
from engine.applying.sources import find_sources
from engine.config import DataConfig, SpeedConfig, TestConfig
from engine.explaining.faithfulness import deletion_cells, measure_deletions, summarize_deletions
from engine.explaining.pictures import Shown, headline
from engine.explaining.reasons import PASSES, Explanation
from engine.explaining.run import (
    Found,
    explain_mistakes,
    explain_videos,
    find_mistakes,
    write_explanation,
)
from engine.files import DEFAULT_CACHE, read_file, resolve, write_json
from engine.testing.score_files import read_scores
from engine.testing.stream import Stream, build_stream

EXACT = SpeedConfig(speed="exact")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.new_parser(__doc__, cache=None)
    add = parser.add_argument
    add("videos", nargs="*", metavar="VIDEO", help="files, folders, patterns")
    cli.add_network_flags(add)
    add(
        "--at",
        type=cli.not_below_zero,
        metavar="SECONDS",
        help="where its clip begins (in the middle)",
    )
    add("--class", dest="asked", metavar="NAME", help="class to explain (the predicted one)")
    add("--output", type=cli.path, metavar="DIR", help="where results go (results/explain)")
    add = parser.add_argument_group("on a test list").add_argument
    add("--mistakes", type=cli.positive, metavar="N", help="the N most certain wrong answers")
    add(
        "--scores",
        type=cli.path,
        metavar="FILE.npz",
        help="score file of the mistakes (newest in results/)",
    )
    add("--faithfulness", action="store_true", help="measure whether attention is faithful")
    add("--dataset", "-d", type=cli.plain_name, help="name of the dataset (the training's)")
    add("--split", "-s", type=cli.positive, help="number of its split (the training's)")
    add("--settings", type=cli.path, metavar="DIR", help="folder of the lists (datasets/settings)")
    frames = "frame folders, packs or videos (datasets/<dataset>_frames, else ..._videos)"
    add("--frames", type=cli.path, metavar="DIR", help=frames)
    cache = {"nargs": "?", "const": DEFAULT_CACHE, "metavar": "DIR"}
    add("--cache", type=cli.path, **cache, help="of tokens, for --faithfulness (docs/CACHE.md)")
    args = parser.parse_args(argv)
    if not (args.videos or args.mistakes or args.faithfulness):
        parser.error("name a VIDEO, or give --mistakes N or --faithfulness")
    return args


def open_test(
    args: argparse.Namespace, network: TrainedNetwork, workers: int, cache: Path | None = None
) -> Stream:
    """The test list of the network's own dataset, or of the one that the flags name."""
    content = read_file(network.path)
    dataset, split = args.dataset or content.get("dataset"), args.split or content.get("split", 1)
    if dataset is None:
        raise UsageError(f"{network.path} does not say what it was trained on: give --dataset")
    places = {"settings": args.settings, "frames": args.frames}
    data = DataConfig(dataset, split, **places, workers=workers, device=args.device)
    config = TestConfig(data, EXACT, clips="single", ten_crop=False, cache=cache)
    return build_stream(config, network.spec.name, network.path)


def newest_scores(stream: Stream) -> Path:
    """The newest score file that the tests wrote of this network and split."""
    split = stream.split
    pattern = f"{split.dataset}_{stream.spec.name}_split{split.number}_*.npz"
    files = resolve(None, "results").glob(pattern)
    newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        raise UsageError(f"no results/{pattern}: test the network first, or name its --scores")
    return newest


class Results:
    """What was explained: written to a folder, a line printed for each, faults counted."""

    def __init__(self, folder: Path, network: TrainedNetwork):
        self.folder, self.network = folder, network
        self.entries: list[dict] = []
        self.faults: list[str] = []
        self.taken: set[str] = set()

    def say_fault(self, fault: object) -> None:
        self.faults.append(str(fault))
        tqdm.write(f"not explained: {fault}", file=sys.stderr)

    def collect(self, explain: Callable[..., Iterator[Found]], number: int, *args) -> None:
        """Explains `number` videos by `explain(*args, tick)`, with a bar that counts passes."""
        bar = {"unit": "pass", "dynamic_ncols": True, "disable": None}
        with tqdm(None, self.network.spec.name, number * PASSES, **bar) as progress:
            for found in explain(*args, progress.update):
                if isinstance(found, DataError):
                    self.say_fault(found)
                else:
                    self.write(*found)

    def write(self, shown: Shown, explanation: Explanation) -> None:
        name = Path(shown.name).stem if shown.label is None else shown.name
        plain = re.sub(r"[^\w.-]+", "_", name).strip("_.") or "input"
        twins = (f"{plain}_{number}" for number in itertools.count(2))
        stem = next(own for own in itertools.chain([plain], twins) if own not in self.taken)
        self.taken.add(stem)
        entry = write_explanation(shown, explanation, self.network.classes, self.folder / stem)
        self.entries.append(entry)
        notes = "".join(f"; {note}" for note in shown.notes)
        picture = self.folder / entry["picture"]
        tqdm.write(f"{headline(shown, explanation, self.network.classes)}: {picture}{notes}")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # network
    folder = resolve(args.output, "results/explain")
    check_writable(folder)
    path = cli.chosen_network(args)
    applied = load_predictor(path, computing=EXACT, device=args.device).networks[0]
    network = applied.network
    results, about = Results(folder, network), {"network": str(network.path)}
    about["arch"] = network.spec.name
    # videos
    sources, faults = find_sources(args.videos)
    for fault in faults:
        results.say_fault(fault)
    if sources:
        own = (applied, sources, args.at, args.asked)
        results.collect(explain_videos, len(sources), *own)
    # a test's mistakes
    if args.mistakes:
        stream = open_test(args, network, workers=0)
        scores = read_scores(args.scores or newest_scores(stream))
        rows = find_mistakes(stream, scores, args.mistakes)
        print(f"the {len(rows)} most certain wrong answers in {scores.path}")
        results.collect(explain_mistakes, len(rows), stream, rows, scores, network.fps)
    # faithfulness
    if args.faithfulness:
        stream = open_test(args, network, workers=2, cache=args.cache)
        about["faithfulness"] = summarize_deletions(measure_deletions(stream))
        for fault in stream.unscored.values():
            results.say_fault(fault)
        print("nats of the predicted class's log odds lost by deleting tokens, mean over videos")
        print(text_table(*deletion_cells(about["faithfulness"])))
    found = {"videos": results.entries, "faults": results.faults}
    write_json(folder / "explanations.json", about | found)
    print(folder / "explanations.json")
    return 1 if results.faults else 0


if __name__ == "__main__":
    run(main)
