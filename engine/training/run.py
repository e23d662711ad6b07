"""A whole training as a script runs it: begin or continue, answer its end, or only evaluate."""

import argparse
import sys
import time
from pathlib import Path

from engine import distributed
from engine.checkpoint import BEST, LAST, load_checkpoint
from engine.data import Training, build_training
from engine.data_check import warn_of_other_data
from engine.files import resolve, run_folder
from engine.learner import Learner
from engine.report import LOG_FILE, Progress
from engine.tokens.dataset import build_cached_training
from engine.trainer import MakeOptimizer, Trainer, make_learner
from engine.training.epoch import validate
from engine.training.signals import Interrupted, Signals, continuing_command
from models import get_arch


def run_training(args: argparse.Namespace, make_optimizer: MakeOptimizer) -> int:
    """Trains, or with `--evaluate` only validates, as the arguments say; returns the exit code.

    `make_optimizer` takes (parameters or groups of them, lr, momentum, weight_decay).
    """
    spec = get_arch(args.arch)
    folder = run_folder(args.output, args.dataset, spec.name, args.split)
    checkpoint = _choose_checkpoint(args, folder)
    training = (build_cached_training if args.cache else build_training)(args)
    learner = make_learner(training, args, make_optimizer)
    if args.evaluate:
        return _evaluate(training, learner, checkpoint, args)
    with Signals() as signals:
        trainer = Trainer(training, args, learner, signals)
        if checkpoint is not None:
            trainer.resume(checkpoint)
        elif distributed.is_main():
            _set_aside(training.folder)
        distributed.wait_for_all()
        try:
            trainer.fit()
        except Interrupted as end:
            print(f"continue with: {continuing_command(sys.argv)}", flush=True)
            return end.code
        except RuntimeError as error:
            return _end_by_a_death(error, trainer)
    return 0


def _end_by_a_death(error: RuntimeError, trainer: Trainer) -> int:
    """Saves what a dead loader process, or another dead process, left; other errors go on."""
    if "DataLoader worker" in str(error):
        distributed.report_error(f"a loader process died: {error}")
    elif distributed.lost_a_process(error):
        distributed.report_error("another process has ended, so this one does")
    else:
        raise error
    trainer.save_last_step()
    if distributed.is_main() and (trainer.training.folder / LAST).exists():
        print(f"continue with: {continuing_command(sys.argv)}", flush=True)
    return 1


def _evaluate(training: Training, learner: Learner, path: Path, args: argparse.Namespace) -> int:
    content = load_checkpoint(path, training.spec, training.model, training.split.class_names)
    warn_of_other_data(content, training.fingerprint, path, ("val",))
    progress = Progress("validation", args.print_freq)
    val = validate(learner, training.model, training.val_loader, progress)
    print(
        f"{path}: loss {val.loss:.4f}, top-1 {val.top1:.2f} %, top-3 {val.top3:.2f} % "
        f"({val.videos} videos, centre crop of the central clip)"
    )
    return 0


def _choose_checkpoint(args: argparse.Namespace, folder: Path) -> Path | None:
    """What to continue from or evaluate, None to begin.

    `-c last` begins a run that has no checkpoint yet, so that one command serves for the first
    start and all later ones. Processes that torchrun started again go on, whatever the flags say.
    """
    if args.evaluate:
        return _checkpoint_path(args.resume or "best", folder)
    if distributed.was_restarted() and (folder / LAST).exists():
        args.resume = "last"
    if args.resume == "last" and not any(folder.glob("*.pth.tar")):
        print(f"no checkpoint in {folder} yet: the training begins")
        args.resume = None
    return _checkpoint_path(args.resume, folder) if args.resume else None


def _checkpoint_path(choice: str, folder: Path) -> Path:
    """`best` and `last` of this run, or a file."""
    names = {"best": BEST, "last": LAST}
    return folder / names[choice] if choice in names else resolve(Path(choice), "")


def _set_aside(folder: Path) -> None:
    """A new training never writes over an earlier one: that is renamed."""
    if (folder / LAST).exists() or (folder / LOG_FILE).exists():
        stamp = time.strftime("%Y%m%d-%H%M%S")
        earlier = folder.with_name(f"{folder.name}.before-{stamp}")
        folder.rename(earlier)
        print(f"an earlier run was there; it is kept as {earlier}")
