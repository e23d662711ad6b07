"""What BERT's class token attends to over time, in correct and in wrong test videos.

    python scripts/attention.py -d motions -a flow_tiny3D16f_bert10_FRMB --picture attention.png

Of each test video the central clip's central crop is classified. The picture shows some videos of
both kinds, a frame for each temporal token, and the class token's attention to the tokens, mean
over the heads; below, its mean over all videos of a class.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

from engine import UsageError, cli
from engine.analysis.attention import collect_examples, draw_examples
from engine.config import DataConfig, TestConfig
from engine.files import resolve
from engine.testing.stream import build_stream


def main(argv: list[str] | None = None) -> int:
    parser = cli.new_parser(__doc__, DataConfig, parents=[cli.data_parent()])
    add = parser.add_argument
    add("--arch", "-a", required=True, help="a network of scripts/list_archs.py with a class token")
    add(
        "--checkpoint",
        type=cli.path,
        metavar="FILE",
        help="trained network to look into (the run's best)",
    )
    add("--runs", type=cli.path, metavar="DIR", help="folder of trainings' runs (checkpoint)")
    add("--videos", type=cli.positive, default=3, help="videos to draw of each kind (%(default)s)")
    add(
        "--picture",
        type=cli.path,
        metavar="FILE.png",
        help="picture to write (results/attention.png)",
    )
    args = parser.parse_args(argv)
    config = cli.fill(TestConfig, args, clips="single", ten_crop=False)
    stream = build_stream(config, args.arch, args.checkpoint)
    if not stream.spec.class_token:
        raise UsageError(f"{stream.spec.name} has no class token")
    examples = collect_examples(stream)
    picture = resolve(args.picture, "results/attention.png")
    draw_examples(examples, args.videos, stream.split.class_names, picture)
    correct = sum(example.correct for example in examples)
    print(f"{correct} of {len(examples)} videos correct\n{picture}")
    return 0


if __name__ == "__main__":
    run(main)
