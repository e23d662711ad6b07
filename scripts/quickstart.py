"""From a folder of videos to a tested network: one command for one's own videos.

    python scripts/quickstart.py VIDEOS
    python scripts/quickstart.py VIDEOS --train 'set1_*' --val 'set2_*'

VIDEOS holds a folder for each class, or --csv names the classes (scripts/data/prepare_videos.py).
Frames are extracted and checked, a backbone pretrained on Kinetics-400 turns clips into tokens, and
a BERT head is tuned on these by cross-validation inside the training list, trained on the whole
list, and tested once. With --flow ENGINE a second network does the same on optical flow.

Each step is one of the project's own commands, printed before it runs. Killed or interrupted, the
same command resumes; what depends on changed videos is done again.
"""

import argparse
import shlex
import sys
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from tabulate import tabulate

from datasets.files import read_json
from datasets.flow.engines import FLOW_ENGINES
from datasets.prepare import collect
from engine import cli
from engine.ablation.heads import recipe_flags
from engine.config import AblationConfig
from engine.distributed import choose_device
from engine.files import ROOT, write_json
from engine.quickstart.network import WEIGHTS, NetworkFiles, Places, in_repository
from engine.quickstart.rates import Rates, Work, mean_frames, measure_rates
from engine.quickstart.steps import Plan, Step, sole_owner
from engine.quickstart.videos import dataset_name, drop_changed_frames, listing
from engine.speed.presets import computes_bf16
from models import get_arch

BATCH = 16  # videos


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("videos", type=cli.path, metavar="VIDEOS", help="folder of the videos")
    add("--csv", type=cli.path, help="file that lists the videos, instead of class folders")
    add("-d", "--dataset", type=cli.plain_name, help="name of the dataset (that of the folder)")
    add("--flow", choices=[*FLOW_ENGINES], help="add a network on optical flow by this engine")
    add(
        "-j",
        "--workers",
        type=cli.positive,
        default=2,
        help="processes that read (%(default)s)",
    )
    add(
        "--output",
        type=cli.path,
        metavar="DIR",
        help="folder for all files (the project's folders)",
    )
    add("--skip-doctor", action="store_true", help="do not check images and split")
    cli.split_flags(parser)
    add = parser.add_argument_group("network").add_argument
    add(
        "-a",
        "--arch",
        default="rgb_I3D64f_bert2_noclass",
        help="network of scripts/list_archs.py (%(default)s)",
    )
    add(
        "--weights",
        default="auto",
        help="weights of its backbone, as of cache_tokens.py (%(default)s)",
    )
    add("--views", type=cli.positive, default=4, help="random views a training video (%(default)s)")
    rates = {"type": cli.above_zero, "nargs": "+", "default": [3e-5, 1e-4, 3e-4]}
    add("--lr", **rates, help="learning rates to tune over (3e-5 1e-4 3e-4)")
    epochs = {"type": cli.positive, "nargs": "+", "default": [60]}
    add("--epochs", **epochs, help="numbers of epochs to tune over (60)")
    return parser.parse_args(argv)


def all_steps(
    args: argparse.Namespace, streams: list[NetworkFiles], work: Work, speed: str
) -> list[Step]:
    """The steps in their order. A command is what it will be once the steps before are finished."""
    places, workers, flow = streams[0].places, ("-j", str(args.workers)), args.flow or "none"
    listed, lists = places.folder / "videos.json", [*streams[0].lists, *streams[-1].lists]
    doctor = places.folder / "doctor.json"
    group = ("--group", args.group.pattern) if args.group else ()
    steps = [
        Step(
            "prepare",
            ("scripts/data/prepare_videos.py", in_repository(args.videos), *places.flags())
            + (*csv_and_split(args), "--flow", flow, *workers),
            reads=(listed,),
            writes=(*lists, places.settings / places.dataset / "classes.txt"),
            minutes=work.preparing(),
            leaves_out=True,
        ),
        Step(
            "doctor",
            ("scripts/data/doctor.py", *places.flags(), *group, *workers)
            + ("--json", in_repository(doctor)),
            reads=(listed, *lists),
            writes=(doctor,),
            minutes=work.checking(),
        ),
    ]
    steps = steps[:1] if args.skip_doctor else steps
    for stream in streams:
        steps += stream_steps(args, stream, work, speed, listed)
    return steps + result_steps(places, streams, work)


def csv_and_split(args: argparse.Namespace) -> tuple[str, ...]:
    """The flags of prepare_videos.py that were given here too."""
    flags = () if args.csv is None else ("--csv", in_repository(args.csv))
    given = {"train": args.train, "val": args.val, "group": args.group and args.group.pattern}
    given |= {"val-share": args.val_share, "seed": args.seed}
    usual = {"val-share": collect.SplitRule.val_share, "seed": collect.SplitRule.seed}
    for name, value in given.items():
        if value is not None and value != usual.get(name):
            flags += (f"--{name}", str(value))
    return flags


def stream_steps(
    args: argparse.Namespace, stream: NetworkFiles, work: Work, speed: str, listed: Path
) -> list[Step]:
    """Weights, tokens, tuning, training and test of one network."""
    places, modality, steps = stream.places, stream.spec.modality, []
    # weights
    if source := stream.source():
        command = ("scripts/weights.py", "get", source.name)
        file = WEIGHTS / source.files[0]
        steps.append(Step("weights", command, (), (file,), minutes=0.5, keyless=True))
    # tokens
    views = ("--views", str(args.views), "--no-ten-crop", "--speed", speed)
    weights = ("--weights", args.weights) if args.weights != "auto" else ()
    command = ("scripts/cache_tokens.py", "--arch", stream.backbone, *weights, *views)
    command += (*places.flags(cache=stream.cache), "-j", str(args.workers))
    made, minutes = (stream.about,), work.caching(stream.spec.frames, args.views)
    reads, name = (listed, *stream.lists), f"cache {modality}"
    steps.append(Step(name, command, reads, made, minutes, owns=stream.cache))
    # tuning
    config = AblationConfig(group=args.group)
    folds, tuning = stream.folds(config), stream.tuning / "tuning.json"
    if folds > 1:
        command = ("scripts/ablate.py", "--cache", in_repository(stream.cache))
        command += ("--heads", stream.head, "--seeds", "0", "--folds", str(folds))
        command += ("--fold-seeds", "1", "--budget", "1")  # the grid alone
        command += ("--lr", *map("{:g}".format, args.lr), "--epochs", *map(str, args.epochs))
        command += ("--group", args.group.pattern) if args.group else ()
        command += ("--batch-size", str(BATCH), "--output", in_repository(stream.tuning))
        minutes = work.tuning(len(args.lr) * sum(args.epochs), folds)
        step = Step(f"tune {modality}", command, (stream.about,), (tuning,), minutes)
        steps.append(replace(step, owns=stream.tuning))
    # training
    chosen = stream.chosen()
    command = ("two_stream_bert2.py", "--arch", stream.spec.name)
    command += (*places.flags(output=places.runs), *cache_flag(places))
    command += (*recipe_flags(chosen, BATCH), "--save-freq", "10")
    made, minutes = (stream.checkpoint,), work.training(max(args.epochs))
    step = Step(f"train {modality}", command, (stream.about,), made, minutes, ("-c", "last"))
    steps.append(step)
    # test
    command = ("scripts/eval/spatial_demo3D.py", "--arch", stream.spec.name, "--no-ten-crop")
    command += ("--checkpoint", in_repository(stream.checkpoint))
    command += (*places.flags(results=places.results), *cache_flag(places))
    reads = (stream.about, stream.checkpoint)
    steps.append(Step(f"test {modality}", command, reads, (stream.scores(),), work.start))
    return steps


def cache_flag(places: Places) -> tuple[str, ...]:
    return ("--cache", in_repository(places.tokens)) if places.output else ("--cache",)


def result_steps(places: Places, streams: list[NetworkFiles], work: Work) -> list[Step]:
    """Fusion of two networks, intervals, report."""
    steps, scores = [], [stream.scores() for stream in streams]
    if len(streams) > 1:
        command = ("scripts/eval/combined_demo.py", "--no-ten-crop")
        for stream in streams:
            name, file = stream.spec.modality, in_repository(stream.checkpoint)
            command += (f"--arch_{name}", stream.spec.name, f"--checkpoint_{name}", file)
        command += (*places.flags(results=places.results), *cache_flag(places))
        fused, reads = streams[0].scores(*streams[1:]), [stream.checkpoint for stream in streams]
        steps.append(Step("fuse", command, tuple(reads), (fused,), work.start))
        scores.append(fused)
    files = tuple(map(in_repository, scores))
    summary, report = places.folder / "summary.json", places.folder / "report.html"
    command = ("scripts/summarize.py", *files, "--json", in_repository(summary))
    steps.append(Step("intervals", command, tuple(scores), (summary,), work.start))
    if (ROOT / "scripts/report.py").exists():
        command = ("scripts/report.py", *files, "--output", in_repository(report))
        steps.append(Step("report", command, tuple(scores), (report,), 2 * work.start))
    return steps


def survey(args: argparse.Namespace, places: Places, plan: Plan, speed: str) -> Work:
    """Which videos there are, and how long this machine takes; frames of changed ones go."""
    # videos
    root = args.videos.resolve()
    videos = collect.read_csv(args.csv) if args.csv else collect.find_videos(root)
    collect.check_videos(root, videos)
    videos = cli.fill(collect.SplitRule, args).apply(videos)
    now, path = listing(root, videos), places.folder / "videos.json"
    earlier = read_json(path, dict) if path.exists() else {}
    for name in drop_changed_frames(places.frames, earlier, now):
        print(f"{name} has changed or gone: its frames are removed")
    if earlier != now:
        write_json(path, now)
    # rates
    names, measured_for = [video.path for video in videos], [args.arch, args.flow, str(root)]
    if plan.notes.get("measured_for") != measured_for:
        print("measuring how fast this machine is ...", flush=True)
        rates = measure_rates(root, names, args.flow, args.arch, speed)
        plan.notes = {"measured_for": measured_for, "rates": asdict(rates)}
        plan.notes["frames"] = mean_frames(root, names)
    subsets, frames = Counter(video.subset for video in videos), plan.notes["frames"]
    train, val = subsets["train"], subsets["val"]
    classes = len({video.class_name for video in videos})
    print(
        f"{len(videos)} videos of {classes} classes, about {frames * len(videos):.0f} frames in "
        f"all: {train} for training, {val} for testing"
    )
    rates = Rates(**plan.notes["rates"])
    return Work(len(videos), train, val, frames, args.workers, rates)


def print_plan(plan: Plan, steps: list[Step]) -> None:
    """The steps that are left, with estimated minutes."""
    minutes = {step.name: 0.0 if plan.is_finished(step) else step.minutes for step in steps}
    rows = [(name, f"{time:.1f}" if time else "finished") for name, time in minutes.items()]
    rows.append(("in all", f"{sum(minutes.values()):.1f}"))
    print(tabulate(rows, ["step", "minutes, about"], colalign=("left", "right")), flush=True)


def print_result(streams: list[NetworkFiles], plan: Plan) -> None:
    """What came out, where it lies, and the command that applies it to a video."""
    for line in plan.left_out():
        print(f"left out: {line}")
    places, rows = streams[0].places, []
    for summary in read_json(places.folder / "summary.json", dict)["runs"]:
        result = summary["splits"][0]
        low, high = result["top1"].get("exact", result["top1"]["interval"])
        rows.append((summary["name"], result["videos"], f"{result['top1']['value']:.2f}"))
        rows[-1] += (f"{low:.2f} to {high:.2f}",)
    head = ["network", "test videos", "top-1, %", "95 % interval"]
    print(tabulate(rows, head, disable_numparse=True))
    print("the last epoch was tested, once; the test videos decided nothing")
    flags = ["--checkpoint", in_repository(streams[0].checkpoint)]
    for stream in streams[1:]:
        flags += ["--checkpoint_flow", in_repository(stream.checkpoint)]
    report = places.folder / "report.html"
    print(f"{in_repository(report)}\n" if report.exists() else "", end="")
    print(f"to apply it: python {shlex.join(['scripts/predict.py', 'VIDEO', *flags])}")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    places = Places(args.dataset or dataset_name(args.videos), args.split, args.output)
    streams = [NetworkFiles(get_arch(args.arch), places, args.weights)]
    streams += [streams[0].on_flow()] if args.flow else []
    speed = "fast" if computes_bf16(choose_device(None)) else "exact"
    with sole_owner(places.folder):
        plan = Plan(places.folder / "plan.json")
        work = survey(args, places, plan, speed)
        build = partial(all_steps, args, streams, work, speed)
        print_plan(plan, build())
        for name in [step.name for step in build()]:
            # commands say what earlier steps found, so they are made anew
            step = next((step for step in build() if step.name == name), None)
            if step is None or plan.is_finished(step):
                continue
            print(f"\n{name}, about {step.minutes:.1f} minutes", flush=True)
            if code := plan.carry_out(step, partial(print, flush=True)):
                print(f"{name} did not finish; when that is mended, the same command resumes")
                if name == "doctor":
                    print("--skip-doctor continues with the errors, and the result may be too good")
                return code
        print()
        print_result(streams, plan)
    return 0


if __name__ == "__main__":
    run(main)
