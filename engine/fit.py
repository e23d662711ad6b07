"""A whole training: epochs, schedule, what to save and when, continuing."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.build import Training, build_training
from engine.checkpoint import BEST, LAST, CheckpointError, load_checkpoint, make_checkpoint
from engine.cli import resolve
from engine.data_check import warn_of_other_data
from engine.distributed import unwrap
from engine.loop import train_one_epoch, validate
from engine.metrics import PassResult
from engine.plots import plot_curves
from engine.report import LOG_FILE, Progress, RunLog, epoch_line, write_json
from engine.resume import (
    StepState,
    describe_progress,
    random_states,
    restore_progress,
    restore_random_states,
    seed_everything,
)
from engine.saver import Saver
from engine.signals import Interrupted, Signals, continuing_command
from opt import Schedule


def run_training(
    args: argparse.Namespace, make_optimizer: Callable[..., torch.optim.Optimizer]
) -> int:
    """Trains, or with `--evaluate` only validates, as the arguments say; returns the exit code.

    `make_optimizer` takes (parameters, lr, momentum, weight_decay).
    """
    training = build_training(args)
    if args.evaluate:
        return _evaluate(training, args)
    optimizer = make_optimizer(
        training.model.parameters(), args.lr, args.momentum, args.weight_decay
    )
    schedule = Schedule(optimizer, args.scheduler, args.epochs, args.warmup_epochs)
    with Signals() as signals:
        run = Run(training, args, optimizer, schedule, signals)
        if args.resume:
            run.resume(_checkpoint_path(args.resume, training.folder))
        else:
            _set_aside(training.folder)
        try:
            run.fit()
        except Interrupted as end:
            print(f"continue with: {continuing_command(sys.argv)}", flush=True)
            return end.code
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            run.save_last_step()
            print(f"error: a loader process died: {error}", file=sys.stderr)
            if (training.folder / LAST).exists():
                print(f"continue with: {continuing_command(sys.argv)}", flush=True)
            return 1
    return 0


class Run:
    """The state of a training from step to step."""

    def __init__(
        self,
        training: Training,
        args: argparse.Namespace,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        signals: Signals,
    ):
        self.training, self.args, self.signals = training, args, signals
        self.optimizer, self.schedule = optimizer, schedule
        self.epoch = getattr(args, "start_epoch", None) or 0  # epochs done
        self.best_prec1, self.best_loss = -1.0, float("inf")
        self.steps_left = args.max_steps
        self.saver = Saver(training.folder, args.keep)
        self.interrupted: dict | None = None  # the progress of an epoch that was cut
        self.random_states: dict | None = None
        self.last_step: StepState | None = None

    def resume(self, path: Path) -> None:
        """Continues from a checkpoint; a file of the reference implementation serves as well."""
        training = self.training
        content = load_checkpoint(
            path, training.spec, unwrap(training.model), training.split.class_names
        )
        warn_of_other_data(content, training.fingerprint, path, ("train", "val"))
        self._restore_optimizer(path, content)
        self.epoch = self.epoch or content.get("epoch", 0)
        self.saver.keep_newer_last(path, self.epoch)
        self.best_prec1 = float(content.get("best_prec1", self.best_prec1))
        self.best_loss = float(content.get("best_loss", self.best_loss))
        self.interrupted = content.get("progress")
        self.random_states = content.get("random_states")
        inside = ""
        if self.interrupted:
            inside = f" and {self.interrupted['result']['steps']} steps of the next"
        print(f"continuing from {path}: {self.epoch} epochs done{inside}")
        if content.get("seed", self.args.seed) != self.args.seed:
            print(f"warning: it was begun with --seed {content['seed']}, not {self.args.seed}")

    def _restore_optimizer(self, path: Path, content: dict) -> None:
        """Optimizer and schedule of a checkpoint; says which flags give way to theirs."""
        if "optimizer" in content:
            ours, saved = self.optimizer.param_groups[0], content["optimizer"]["param_groups"][0]
            if ("betas" in saved) != ("betas" in ours):
                kind, script = ("AdamW", "two_stream_bert2.py"), ("SGD", "two_stream2.py")
                name, other = kind if "betas" in saved else script
                raise CheckpointError(f"{path} was trained with {name}; continue with {other}")
            self.optimizer.load_state_dict(content["optimizer"])
            begun = saved.get("initial_lr", self.args.lr)
            if begun != self.args.lr:
                print(f"note: the rate of the checkpoint goes on (begun with --lr {begun:g})")
        if "scheduler" in content:
            if content["scheduler"]["kind"] != self.args.scheduler:
                print(f"note: --scheduler {self.args.scheduler} begins at epoch 0 of its course")
            self.schedule.load_state_dict(content["scheduler"])

    def fit(self) -> None:
        """Runs the remaining epochs; raises Interrupted when a signal ended it."""
        folder = self.training.folder
        folder.mkdir(parents=True, exist_ok=True)
        flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()}
        write_json(folder / "args.json", flags)
        self._announce()
        log = RunLog(folder, self.epoch)
        try:
            while self.epoch < self.args.epochs and self.steps_left != 0:
                self._run_epoch(log)
        finally:
            log.close()
        if self.steps_left == 0:
            print(f"stopped after --max-steps {self.args.max_steps}")
        if (folder / LOG_FILE).exists():
            plot_curves(folder / LOG_FILE, folder / "curves.png")
        print(f"best validation top-1 {self.best_prec1:.2f} %; checkpoints and curves: {folder}")

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

    def _begin_epoch(self) -> PassResult:
        """Sets order, crops and random numbers; returns the sums of what is already done."""
        sampler = self.training.train_loader.sampler
        self.training.train_loader.dataset.set_epoch(self.epoch)
        sampler.set_epoch(self.epoch)
        result = PassResult()
        if self.interrupted is None:
            seed_everything(self.args.seed + self.epoch)
        else:
            result, permutation = restore_progress(self.interrupted)
            sampler.restore(permutation, result.videos)
            restore_random_states(self.random_states)
            self.interrupted = None
        if self.last_step is not None:  # before a first step there is nothing new to save
            self.last_step = StepState(unwrap(self.training.model), result)
        return result

    def _run_epoch(self, log: RunLog) -> None:
        training, args = self.training, self.args
        result = self._begin_epoch()
        lr = self.optimizer.param_groups[0]["lr"]
        steps_before = result.steps
        title = f"epoch {self.epoch + 1}/{args.epochs}"
        train = train_one_epoch(
            training.model,
            training.train_loader,
            training.normalize,
            self.optimizer,
            args.iter_size,
            training.device,
            Progress(title, args.print_freq),
            self.steps_left,
            result,
            self._after_step,
        )
        if self.steps_left is not None:
            self.steps_left -= train.steps - steps_before
        val = validate(
            training.model,
            training.val_loader,
            training.normalize,
            training.device,
            Progress(f"{title} validation", args.print_freq),
            lambda _: self._answer_signals(train),
        )
        self.schedule.step(val.loss)
        print(epoch_line(self.epoch, args.epochs, lr, train, val), flush=True)
        # The log first: killed before the checkpoint, the epoch is run and logged again.
        log.epoch(self.epoch, lr, train, val)
        self.epoch += 1
        self._save_epoch(val)

    def save_last_step(self) -> None:
        """Saves the state behind the last optimizer step, when the batches since then are lost."""
        if self.last_step is not None:
            self.last_step.restore(unwrap(self.training.model))
            self.saver.save_last(self._content(self.last_step.result))

    def _after_step(self, result: PassResult) -> None:
        self.signals.notice_dead_workers_at_the_next_batch()
        self.last_step = StepState(unwrap(self.training.model), result)
        if self.args.save_steps and result.steps % self.args.save_steps == 0:
            self.saver.save_last(self._content(result))
        self._answer_signals(result)

    def _answer_signals(self, result: PassResult) -> None:
        """Saves if a signal asked for it, and raises Interrupted if it asked to end."""
        if not self.signals.save and self.signals.exit_code is None:
            return
        self.signals.save = False
        saved = self.saver.save_last(self._content(result))
        print(f"{'saved' if saved else 'NOT saved'}: {self.training.folder / LAST}", flush=True)
        if self.signals.exit_code is not None:
            raise Interrupted(self.signals.exit_code)

    def _save_epoch(self, val: PassResult) -> None:
        is_best = val.top1 > self.best_prec1
        if is_best:
            self.best_prec1, self.best_loss = val.top1, val.loss
        is_final = self.epoch == self.args.epochs or self.steps_left == 0
        if is_best or is_final or self.epoch % self.args.save_freq == 0:
            self.saver.save_epoch(self._content(None), is_best)

    def _content(self, result: PassResult | None) -> dict:
        """A checkpoint's content; `result` within an epoch, None behind it."""
        training = self.training
        progress = None
        if result is not None:
            progress = describe_progress(result, training.train_loader.sampler.permutation)
        return make_checkpoint(
            training.spec,
            unwrap(training.model),
            self.optimizer,
            self.schedule.state_dict(),
            self.epoch,
            self.best_prec1,
            self.best_loss,
            training.about()
            | {
                "progress": progress,
                "random_states": random_states(),
                "seed": self.args.seed,
            },
        )


def _evaluate(training: Training, args: argparse.Namespace) -> int:
    path = _checkpoint_path(args.resume or "best", training.folder)
    content = load_checkpoint(
        path, training.spec, unwrap(training.model), training.split.class_names
    )
    warn_of_other_data(content, training.fingerprint, path, ("val",))
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
