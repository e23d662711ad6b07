"""What BERT's class token attends to over time, in correct and in wrong test videos.

    python scripts/attention.py -d motions -a flow_tiny3D16f_bert10_FRMB --picture attention.png

Of each test video the central clip's central crop is classified. The picture shows some videos of
both kinds, a frame for each temporal token, and the class token's attention to the tokens, mean
over the heads; below, its mean over all videos of a class.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine import UsageError
from engine.analysis.attention import choose_examples, collect_examples, draw_examples
from engine.cli import data_parent, run
from engine.data import build_stream
from engine.files import resolve
from engine.flag_types import path, positive


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        parents=[data_parent()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", "-a", required=True, help="with a BERT head of one class token")
    parser.add_argument("--checkpoint", type=path, metavar="FILE", help="(the run's best model)")
    parser.add_argument("--runs", type=path, metavar="DIR", help="training's runs (checkpoint)")
    parser.add_argument("--videos", type=positive, default=3, help="of each kind (%(default)s)")
    parser.add_argument("--picture", type=path, metavar="FILE.png", help="(results/attention.png)")
    args = parser.parse_args(argv)
    stream = build_stream(args, args.arch, args.checkpoint)
    if not stream.spec.class_token:
        raise UsageError(f"{stream.spec.name} has no class token")
    examples = collect_examples(stream, args.workers, args.scaled_decoding)
    chosen = choose_examples(examples, args.videos)
    picture = resolve(args.picture, "results/attention.png")
    draw_examples(examples, chosen, stream.split.class_names, picture)
    correct = sum(example.correct for example in examples)
    print(f"{correct} of {len(examples)} videos correct\n{picture}")
    return 0


if __name__ == "__main__":
    run(main)
