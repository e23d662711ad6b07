"""Which checkpoints a run keeps: the last, the best, the newest epochs; and a full disk."""

import copy
import os
import time
from pathlib import Path

from engine.checkpoint import BEST, BEST_AVERAGE, LAST
from engine.files import read_file, save_atomically

EPOCH_FILE = "epoch_{:04d}.pth.tar"


class Saver:
    """Writes a run's checkpoints. A write that fails is reported, and tried again at the next.

    Args:
        folder: the run's.
        keep: how many of the newest epochs' checkpoints stay, beside the last and the best.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.unsaved: dict[str, dict] = {}  # name -> content that is still to be written

    def keep_newer_last(self, path: Path, epoch: int) -> None:
        """Going on from `path` would write over `last`; one of a later epoch is renamed."""
        last = self.folder / LAST
        if path == last or not last.exists() or read_file(last).get("epoch", 0) <= epoch:
            return
        kept = last.with_name(f"last.before-{time.strftime('%Y%m%d-%H%M%S')}.pth.tar")
        last.rename(kept)
        print(f"{LAST} was of a later epoch; it is kept as {kept.name}")

    def save_last(self, content: dict) -> bool:
        """Writes `last`; returns whether it could."""
        return self._write(content, LAST)

    def save_epoch(self, content: dict, is_best: bool, is_best_average: bool = False) -> None:
        """Writes what belongs to the end of an epoch.

        The best go first: killed before the last, the epoch's end is run again from the checkpoint
        before it and found best again. The best average is a checkpoint with its weights.
        """
        if is_best:
            self.unsaved[BEST] = content
        if is_best_average:
            weights = {"state_dict": content["learner"]["ema"], "best_prec1": content["best_ema"]}
            self.unsaved[BEST_AVERAGE] = content | weights
        for name, unsaved in list(self.unsaved.items()):
            if self._write(unsaved, name):
                del self.unsaved[name]
            else:
                self.unsaved[name] = copy.deepcopy(unsaved)  # training goes on
        if self.save_last(content) and self.keep:
            try:
                self._keep(content["epoch"])
            except OSError as error:
                print(f"warning: epoch {content['epoch']} cannot be kept ({error})", flush=True)

    def _write(self, content: dict, name: str) -> bool:
        try:
            save_atomically(content, self.folder / name)
        except OSError as error:
            print(
                f"warning: {self.folder / name} cannot be written ({error}); the earlier file, if "
                "any, is whole, training goes on, and the next save tries again",
                flush=True,
            )
            return False
        return True

    def _keep(self, epoch: int) -> None:
        """Gives the last checkpoint a second name, and drops the oldest of such names."""
        kept = self.folder / EPOCH_FILE.format(epoch)
        kept.unlink(missing_ok=True)
        os.link(self.folder / LAST, kept)
        kept_files = self.folder.glob("epoch_*.pth.tar")
        for path in sorted(kept_files, key=lambda p: p.stat().st_mtime_ns)[: -self.keep]:
            path.unlink()
