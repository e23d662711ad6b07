"""Says once that a training waits for its data, how fast both sides are, and what would help."""

import os

from datasets.sources.choose import FOLDERS, VIDEOS
from engine.data import Training
from engine.metrics import PassResult

LIMIT = 20.0  # percent of the time spent waiting
ENOUGH = 30.0  # seconds of an epoch after which its numbers mean something


class LoadingAdvice:
    """Looks at a training's running sums and speaks up at most once.

    Args:
        training: what is trained on what.
        workers: loader processes.
        scaled: whether JPEGs are decoded at a fraction of their size.
    """

    def __init__(self, training: Training, workers: int, scaled: bool):
        self.training, self.workers, self.scaled = training, workers, scaled
        self.said = False

    def look(self, result: PassResult, whole_epoch: bool = False) -> None:
        """To be called behind a step, and behind an epoch."""
        if self.training.cache:  # nothing of this would help
            return
        enough = whole_epoch or result.loading + result.computing >= ENOUGH
        if not self.said and enough and result.waiting > LIMIT:
            self.said = True
            print(self.message(result), flush=True)

    def message(self, result: PassResult) -> str:
        """Loader processes work all the time; without any, loading and computing take turns."""
        seconds = result.loading + (result.computing if self.workers else 0)
        return (
            f"waiting for data {result.waiting:.0f} % of the time: the loader gives "
            f"{result.clips / max(1e-9, seconds):.1f} clips/s, the network could take "
            f"{result.clips / max(1e-9, result.computing):.1f}; what would help "
            f"(docs/LOADING.md): {'; '.join(self.remedies())}"
        )

    def remedies(self) -> list[str]:
        """What is not done yet, the harmless first."""
        source, spec = self.training.split.source, self.training.spec
        width, height = spec.input.resize
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        found = []
        if self.workers < cores:
            found.append(f"--workers {cores}, there are as many cores (now {self.workers})")
        if source.kind == VIDEOS:
            found.append("extracting frames with scripts/data/prepare_videos.py, then packing them")
        if source.kind == FOLDERS or (source.pack and source.pack.stem.endswith("original")):
            found.append(
                f"scripts/data/pack_frames.py --dataset {self.training.split.dataset} "
                f"--modality {spec.modality} --size {width}x{height}"
            )
        if source.kind == FOLDERS and not self.scaled:
            found.append(
                "--scaled-decoding, if the images are at least twice as large (other pixels)"
            )
        return found or ["a machine with more cores"]
