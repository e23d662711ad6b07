"""A training from step to step: epochs, what is saved and when, how it is taken up again."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from engine import distributed
from engine.checkpoint import LAST, load_checkpoint, make_checkpoint
from engine.data import Training
from engine.data_check import warn_of_other_data
from engine.files import write_json
from engine.learner import Learner
from engine.loading_advice import LoadingAdvice
from engine.metrics import PassResult
from engine.report import Progress, RunLog, epoch_line
from engine.training.checkpoints import Saver
from engine.training.epoch import train_one_epoch, validate
from engine.training.signals import Interrupted, Signals
from engine.training.state import (
    StepState,
    changed_flags,
    describe_progress,
    random_states,
    recipe,
    restore_optimization,
    restore_progress,
    restore_random_states,
    seed_everything,
)
from models.finetuning import freeze, parameter_groups
from opt import Schedule

MakeOptimizer = Callable[..., torch.optim.Optimizer]


def make_learner(
    training: Training, args: argparse.Namespace, make_optimizer: MakeOptimizer
) -> Learner:
    """The network with its optimizer and all that the flags say about a step."""
    frozen = freeze(training.model, args.freeze_backbone, args.freeze_bn)
    parameters = parameter_groups(training.model, args.lr, args.layer_decay)
    return Learner(
        model=training.model,
        optimizer=make_optimizer(parameters, args.lr, args.momentum, args.weight_decay),
        normalize=training.normalize,
        device=training.device,
        batch_size=args.batch_size,
        iter_size=args.iter_size,
        amp=args.amp,
        clip_grad=args.clip_grad,
        label_smoothing=args.label_smoothing,
        mixup=args.mixup,
        ema=args.ema,
        frozen=frozen,
    )


class Trainer:
    """The state of a training from step to step; each of several processes has one."""

    def __init__(
        self, training: Training, args: argparse.Namespace, learner: Learner, signals: Signals
    ):
        self.training, self.args, self.signals = training, args, signals
        self.learner = learner
        self.schedule = Schedule(learner.optimizer, args.scheduler, args.epochs, args.warmup_epochs)
        self.epoch = getattr(args, "start_epoch", None) or 0  # epochs done
        self.best = {"best_prec1": -1.0, "best_loss": float("inf"), "best_ema": -1.0}
        self.steps_left = args.max_steps
        self.saver = Saver(training.folder, args.keep)
        self.advice = LoadingAdvice(training, args.workers, args.scaled_decoding)
        self.interrupted: dict | None = None  # the progress of an epoch that was cut
        self.random_states: list = []  # of every process, then
        self.last_step: StepState | None = None

    def resume(self, path: Path) -> None:
        """Continues from a checkpoint; a file of the reference implementation serves as well."""
        training = self.training
        content = load_checkpoint(path, training.spec, training.model, training.split.class_names)
        warn_of_other_data(content, training.fingerprint, path, ("train", "val"))
        restore_optimization(path, content, self.learner, self.schedule, self.args)
        self.epoch = self.epoch or content.get("epoch", 0)
        distributed.wait_for_all()  # everyone has read, now files may be renamed
        if distributed.is_main():
            self.saver.keep_newer_last(path, self.epoch)
        self.best |= {key: float(content[key]) for key in self.best if key in content}
        self.interrupted = content.get("progress")
        self.random_states = content.get("random_states", [])
        inside = ""
        if self.interrupted:
            inside = f" and {self.interrupted['result'].get('steps', 0)} steps of the next"
        print(f"continuing from {path}: {self.epoch} epochs done{inside}")
        for difference in changed_flags(content, self.args):
            print(f"note: {difference}")
        if content.get("seed", self.args.seed) != self.args.seed:
            print(f"warning: it was begun with --seed {content['seed']}, not {self.args.seed}")

    def fit(self) -> None:
        """Runs the remaining epochs; raises Interrupted when a signal ended it."""
        folder = self.training.folder
        log = None
        if distributed.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()}
            write_json(folder / "args.json", flags)
            log = RunLog(folder, self.epoch)
        self._announce()
        try:
            while self.epoch < self.args.epochs and self.steps_left != 0:
                self._run_epoch(log)
        finally:
            if log:
                log.close()
        if self.steps_left == 0:
            print(f"stopped after --max-steps {self.args.max_steps}")
        if log:
            log.plot()
        best = f"best validation top-1 {self.best['best_prec1']:.2f} %"
        print(f"{best}; checkpoints and curves: {folder}")

    def _announce(self) -> None:
        training, args = self.training, self.args
        parameters = list(training.model.parameters())
        total = sum(p.numel() for p in parameters)
        learning = sum(p.numel() for p in parameters if p.requires_grad)
        frozen = "" if learning == total else f" ({learning / 1e6:.3f} M learning)"
        world = distributed.world_size()
        batch = args.batch_size * args.iter_size * world
        sums = f"{args.batch_size} x {args.iter_size} x {world} = {batch}"
        print(
            f"{training.spec.name}: {total / 1e6:.3f} M parameters{frozen} on {training.device}, "
            f"{len(training.split.train)} training and {len(training.split.val)} validation videos "
            f"of {len(training.split.class_names)} classes, effective batch "
            f"(--batch-size x --iter-size x processes) {sums}",
            flush=True,
        )
        if training.gauge is not None:
            print(f"from tokens: {training.gauge}", flush=True)

    def _begin_epoch(self) -> PassResult:
        """Sets order, crops and random numbers; returns the sums of what is already done."""
        batches = self.training.train_loader.batch_sampler
        self.training.train_loader.dataset.set_epoch(self.epoch)
        batches.set_epoch(self.epoch)
        result = PassResult()
        seed_everything(self.args.seed + self.epoch, distributed.rank())
        if self.interrupted is not None:
            result, permutation = restore_progress(self.interrupted)
            batches.restore(permutation, result.videos)
            self._restore_random_states(result.steps)
            self.interrupted = None
        if self.last_step is not None:  # before a first step there is nothing new to save
            self.last_step = StepState(self.training.model, result)
        return result

    def _restore_random_states(self, steps: int) -> None:
        """This process's states; other ones where another number of processes goes on."""
        states = self.random_states
        if len(states) == distributed.world_size() and None not in states:
            restore_random_states(states[distributed.rank()])
            return
        seed_everything(self.args.seed + self.epoch, distributed.rank(), steps)
        print("note: the random states are those of other processes; new ones are drawn")

    def _run_epoch(self, log: RunLog | None) -> None:
        training, args, learner = self.training, self.args, self.learner
        result = self._begin_epoch()
        lr = learner.optimizer.param_groups[0]["lr"]
        steps_before = result.steps
        title = f"epoch {self.epoch + 1}/{args.epochs}"
        train = train_one_epoch(
            learner,
            training.train_loader,
            Progress(title, args.print_freq),
            self.steps_left,
            result,
            self._after_step,
        )
        self.advice.look(train, whole_epoch=True)
        if self.steps_left is not None:
            self.steps_left -= train.steps - steps_before
        distributed.share_buffers(training.model)
        val = self._validate(training.model, f"{title} validation", train)
        ema = None
        if learner.average is not None:
            ema = self._validate(learner.average.module, f"{title} average's validation", train)
        self.schedule.step(val.loss)
        line = epoch_line(self.epoch, args.epochs, lr, train, val, ema)
        more = {}
        if training.gauge is not None:
            share = training.gauge.share(train.clips_per_second / distributed.world_size())
            line += f", {share:.0f} % of the matrix rate"
            more["percent_of_matrix_rate"] = round(share, 1)
        print(line, flush=True)
        # The log first: killed before the checkpoint, the epoch is run and logged again.
        if log:
            log.epoch(self.epoch, lr, train, val, ema, more)
        self.epoch += 1
        self._save_epoch(val, ema)

    def _validate(self, model: torch.nn.Module, title: str, train: PassResult) -> PassResult:
        """A pass over the validation list; signals are answered as long as all processes are."""
        loader = self.training.val_loader
        common = loader.batch_sampler.common

        def after_batch(number: int) -> None:
            if number <= common:
                self._answer_signals(train)

        progress = Progress(title, self.args.print_freq)
        return validate(self.learner, model, loader, progress, after_batch)

    def save_last_step(self) -> None:
        """Saves the state behind the last optimizer step, when the batches since then are lost."""
        if self.last_step is None or not distributed.is_main():
            return
        self.last_step.restore(self.training.model)
        others = [None] * (distributed.world_size() - 1)
        content = self._content(self.last_step.result, [self.last_step.random_states, *others])
        self.saver.save_last(content)

    def _after_step(self, result: PassResult) -> None:
        self.signals.notice_dead_workers_at_the_next_batch()
        self.last_step = StepState(self.training.model, result)
        self.advice.look(result)
        if self.args.save_steps and result.steps % self.args.save_steps == 0:
            self._save_last(result)
        self._answer_signals(result)

    def _answer_signals(self, result: PassResult) -> None:
        """Saves if a signal to any process asked for it, and raises Interrupted if to end."""
        self.signals.agree()
        if not self.signals.save and self.signals.exit_code is None:
            return
        self.signals.save = False
        saved = self._save_last(result)
        print(f"{'saved' if saved else 'NOT saved'}: {self.training.folder / LAST}", flush=True)
        if self.signals.exit_code is not None:
            raise Interrupted(self.signals.exit_code)

    def _save_last(self, result: PassResult) -> bool:
        content = self._content(result, distributed.gather(random_states()))
        return self.saver.save_last(content) if distributed.is_main() else True

    def _save_epoch(self, val: PassResult, ema: PassResult | None) -> None:
        is_best = val.top1 > self.best["best_prec1"]
        if is_best:
            self.best |= {"best_prec1": val.top1, "best_loss": val.loss}
        is_best_ema = ema is not None and ema.top1 > self.best["best_ema"]
        if is_best_ema:
            self.best["best_ema"] = ema.top1
        is_final = self.epoch == self.args.epochs or self.steps_left == 0
        if is_best or is_best_ema or is_final or self.epoch % self.args.save_freq == 0:
            content = self._content(None, distributed.gather(random_states()))
            if distributed.is_main():
                self.saver.save_epoch(content, is_best, is_best_ema)

    def _content(self, result: PassResult | None, states: list) -> dict:
        """A checkpoint's content; `result` within an epoch, None behind it."""
        training, progress = self.training, None
        if result is not None:
            order = training.train_loader.batch_sampler.permutation
            progress = describe_progress(result, order)
        return make_checkpoint(
            training.spec,
            training.model,
            self.learner.optimizer,
            self.schedule.state_dict(),
            self.epoch,
            **self.best,
            about=training.about(),
        ) | {
            "learner": self.learner.state_dict(),
            "progress": progress,
            "random_states": states,
            "seed": self.args.seed,
            "flags": recipe(self.args),
        }
