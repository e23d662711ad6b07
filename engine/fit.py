"""A whole training: epochs, schedule, what to save and when, continuing."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.build import Training, build_training
from engine.checkpoint import BEST, LAST, load_checkpoint, make_checkpoint, save_atomically
from engine.cli import resolve
from engine.distributed import unwrap
from engine.loop import train_one_epoch, validate
from engine.plots import plot_curves
from engine.report import LOG_FILE, Progress, RunLog, epoch_line, write_json
from opt import Schedule


def run_training(
    args: argparse.Namespace, make_optimizer: Callable[..., torch.optim.Optimizer]
) -> int:
    """Trains, or with `--evaluate` only validates, as the arguments say.

    `make_optimizer` takes (parameters, lr, momentum, weight_decay).
    """
    training = build_training(args)
    if args.evaluate:
        return _evaluate(training, args)
    optimizer = make_optimizer(
        training.model.parameters(), args.lr, args.momentum, args.weight_decay
    )
    schedule = Schedule(optimizer, args.scheduler, args.epochs, args.warmup_epochs)
    run = Run(training, args, optimizer, schedule)
    if args.resume:
        run.resume(_checkpoint_path(args.resume, training.folder))
    else:
        _set_aside(training.folder)
    return run.fit()


class Run:
    """The state of a training from epoch to epoch."""

    def __init__(
        self,
        training: Training,
        args: argparse.Namespace,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
    ):
        self.training, self.args = training, args
        self.optimizer, self.schedule = optimizer, schedule
        self.start_epoch = getattr(args, "start_epoch", None) or 0
        self.best_prec1, self.best_loss = -1.0, float("inf")
        self.steps_left = args.max_steps

    def resume(self, path: Path) -> None:
        """Continues from a checkpoint; a file of the reference implementation serves as well."""
        training = self.training
        content = load_checkpoint(
            path, training.spec, unwrap(training.model), training.split.class_names
        )
        if "optimizer" in content:
            self.optimizer.load_state_dict(content["optimizer"])
        if "scheduler" in content:
            self.schedule.load_state_dict(content["scheduler"])
        if not self.start_epoch:
            self.start_epoch = content.get("epoch", 0)
        self.best_prec1 = float(content.get("best_prec1", self.best_prec1))
        self.best_loss = float(content.get("best_loss", self.best_loss))
        print(f"continuing from {path}: {self.start_epoch} epochs done")

    def fit(self) -> int:
        """Runs the remaining epochs and returns the exit code."""
        folder = self.training.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "args.json",
            {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()},
        )
        self._announce()
        log = RunLog(folder, self.start_epoch)
        try:
            for epoch in range(self.start_epoch, self.args.epochs):
                self._epoch(epoch, log)
                if self.steps_left == 0:
                    print(f"stopped after --max-steps {self.args.max_steps}")
                    break
        finally:
            log.close()
        if (folder / LOG_FILE).exists():
            plot_curves(folder / LOG_FILE, folder / "curves.png")
        print(f"best validation top-1 {self.best_prec1:.2f} %; checkpoints and curves: {folder}")
        return 0

    def _announce(self) -> None:
        training, args = self.training, self.args
        parameters = sum(p.numel() for p in training.model.parameters())
        print(
            f"{training.spec.name}: {parameters / 1e6:.3f} M parameters on {training.device}, "
            f"{len(training.split.train)} training and {len(training.split.val)} validation videos "
            f"of {len(training.split.class_names)} classes, "
            f"effective batch {args.batch_size * args.iter_size}",
            flush=True,
        )
        if args.weights is None and not args.resume:
            print("no --weights: training from scratch")

    def _epoch(self, epoch: int, log: RunLog) -> None:
        training, args = self.training, self.args
        training.train_loader.dataset.set_epoch(epoch)
        training.train_loader.sampler.set_epoch(epoch)
        # Dropout, too, is a function of seed and epoch: continuing changes nothing.
        torch.manual_seed(args.seed + epoch)
        lr = self.optimizer.param_groups[0]["lr"]
        title = f"epoch {epoch + 1}/{args.epochs}"
        train = train_one_epoch(
            training.model,
            training.train_loader,
            training.normalize,
            self.optimizer,
            args.iter_size,
            training.device,
            Progress(title, args.print_freq),
            self.steps_left,
        )
        if self.steps_left is not None:
            self.steps_left -= train.steps
        val = validate(
            training.model,
            training.val_loader,
            training.normalize,
            training.device,
            Progress(f"{title} validation", args.print_freq),
        )
        self.schedule.step(val.loss)
        print(epoch_line(epoch, args.epochs, lr, train, val), flush=True)
        log.epoch(epoch, lr, train, val)
        self._save(epoch + 1, val.top1, val.loss)

    def _save(self, epochs_done: int, top1: float, loss: float) -> None:
        training, args = self.training, self.args
        is_best = top1 > self.best_prec1
        if is_best:
            self.best_prec1, self.best_loss = top1, loss
        is_final = epochs_done == args.epochs or self.steps_left == 0
        if not (is_best or is_final or epochs_done % args.save_freq == 0):
            return
        content = make_checkpoint(
            training.spec,
            unwrap(training.model),
            self.optimizer,
            self.schedule.state_dict(),
            epochs_done,
            self.best_prec1,
            self.best_loss,
            training.about(),
        )
        save_atomically(content, training.folder / LAST)
        if is_best:
            save_atomically(content, training.folder / BEST)


def _evaluate(training: Training, args: argparse.Namespace) -> int:
    path = _checkpoint_path(args.resume or "best", training.folder)
    load_checkpoint(path, training.spec, unwrap(training.model), training.split.class_names)
    progress = Progress("validation", args.print_freq)
    val = validate(
        training.model, training.val_loader, training.normalize, training.device, progress
    )
    print(
        f"{path}: loss {val.loss:.4f}, top-1 {val.top1:.2f} %, top-3 {val.top3:.2f} % "
        f"({val.videos} videos, centre crop of the central clip)"
    )
    return 0


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
