"""A whole ten-crop test of one video, beside the bare forward passes of its clips.

    python scripts/benchmark.py test --arch rgb_I3D64f              # minutes: 40 passes, twice
    python scripts/benchmark.py test --arch rgb_I3D64f --clips 1

Everything runs in one process, so reading, cropping and normalising count in full; times are
processor time, which other work on the machine does not stretch. Memory is the peak of the
resident set during the test, above what it was with the network loaded (Linux only). MFU is what
the passes reach of the rate at which the machine multiplies float32 matrices, with these threads.
"""

import argparse
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from datasets import Split
from datasets.records import VideoRecord
from datasets.sampling import multi_clip
from datasets.sources.choose import choose_source
from datasets.sources.folders import USUAL_NAMES
from datasets.specs import unnamed_classes
from engine.cli.flag_types import positive
from engine.data import normalization
from engine.files import write_json
from engine.metrics import count_flops, matrix_rate, mfu
from engine.testing.score import score_all
from engine.testing.stream import Stream, choose_batch_size, frame_clips
from models import create_model, get_arch
from scripts.benchmarks.sample_data import make_frames
from video_transforms import PLAIN

NUM_OUTPUTS = 51  # HMDB51's classes


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--arch", default="rgb_I3D64f", help="an RGB architecture (%(default)s)")
    add("--frames", type=positive, default=280, help="of the video (%(default)s)")
    add("--clips", type=positive, help="only the first so many of its clips")
    add("--batch-size", type=positive, help="views at once (as the tests)")
    add("--video", type=Path, help="take the frames from it (a texture)")
    add("--threads", type=positive, default=1, help="of the network (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the numbers there")


def main(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    # measure
    with TemporaryDirectory(prefix="benchmark_") as folder:
        make_frames(Path(folder) / "video", args.frames, args.video)
        stream = _stream(args, Path(folder))
        batch_size = stream.batch_size
        clips = len(multi_clip(args.frames, stream.spec.frames)[: args.clips])
        _bare_passes(stream, min(10, batch_size), batch_size)  # warms up
        whole, peak = _measured(lambda: score_all(stream))
        bare, bare_peak = _measured(lambda: _bare_passes(stream, 10 * clips, batch_size))
        with torch.device("meta"):  # nothing is computed
            model = create_model(args.arch, NUM_OUTPUTS)
            flops = count_flops(model, torch.empty(1, *stream.spec.clip_shape))
        rate = matrix_rate(stream.device)
    # report
    report = {
        "arch": args.arch,
        "clips": clips,
        "views": 10 * clips,
        "batch_size": batch_size,
        "seconds_test": round(whole, 2),
        "seconds_bare_passes": round(bare, 2),
        "ratio": round(whole / bare, 4),
        "gflop_a_view": round(flops / 1e9, 2),
        "mfu_percent_of_passes": round(mfu(flops, 10 * clips / bare, rate), 1),
        "peak_megabytes_above_the_model": round(peak / 1e6),
        "of_which_the_passes": round(bare_peak / 1e6),
    }
    for name, value in report.items():
        print(f"{name.replace('_', ' '):<32} {value}")
    if args.json:
        write_json(args.json, report)
    return 0


def _stream(args: argparse.Namespace, root: Path) -> Stream:
    """A network with random weights and a list of one video."""
    spec = get_arch(args.arch)
    record = VideoRecord("video", args.frames, 0, "list:1")
    source = choose_source(root, USUAL_NAMES, spec.modality, record)
    classes = unnamed_classes(NUM_OUTPUTS)
    split = Split("benchmark", 1, spec.modality, [], [record], classes, source, True)
    reader = source.reader(spec.input.resize)

    def choose(count: int, length: int) -> list[np.ndarray]:
        return multi_clip(count, length)[: args.clips]

    device = torch.device("cpu")
    return Stream(
        spec=spec,
        split=split,
        model=create_model(spec.name, NUM_OUTPUTS).eval(),
        device=device,
        flip=PLAIN,
        checkpoint=Path("random weights"),
        read=partial(frame_clips, [record], reader, spec, choose, True, PLAIN, 0),
        prepare=normalization(spec),
        batch_size=args.batch_size or choose_batch_size(device),
    )


@torch.inference_mode()
def _bare_passes(stream: Stream, views: int, batch_size: int) -> None:
    """The network alone on as many views, all of them the same ready-made input."""
    inputs = torch.randn(min(views, batch_size), *stream.spec.clip_shape)
    for first in range(0, views, batch_size):
        stream.model(inputs[: min(batch_size, views - first)])


def _measured(work: Callable[[], object]) -> tuple[float, float]:
    """(processor seconds, peak bytes above the resident set at the beginning; NaN elsewhere)."""
    before = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except OSError:
        before = float("nan")
    start = time.process_time()
    work()
    return time.process_time() - start, _resident("VmHWM") - before


def _resident(key: str) -> float:
    """Bytes of an entry of /proc/self/status; NaN without one."""
    status = Path("/proc/self/status")
    found = re.search(rf"{key}:\s*(\d+)", status.read_text() if status.exists() else "")
    return 1024.0 * int(found[1]) if found else float("nan")
