"""When a run saves, and what it keeps: the last, the best, the newest epochs; and a full disk."""

import copy
import math
import sys
from dataclasses import asdict
from pathlib import Path

from datasets.samplers import TrainingBatches
from engine import distributed
from engine.checkpoint import BEST, BEST_AVERAGE, LAST, load_checkpoint, make_checkpoint
from engine.config import TrainingConfig
from engine.data import SUBSETS, warn_of_other_data
from engine.files import save_atomically
from engine.loading import is_loader_death
from engine.metrics import EpochStats
from engine.training.build import TrainingData
from engine.training.folder import (
    describe_held,
    keep_newest,
    newest_finite,
    set_later_aside,
    set_run_aside,
)
from engine.training.signals import Interrupted, Signals, continuing_command
from engine.training.state import (
    StepState,
    TrainingState,
    changed_flags,
    check_list,
    random_states,
)
from engine.training.sums import NonFiniteLoss, Sums, as_stats


class CheckpointManager:
    """Writes a run's checkpoints. A write that fails is reported, and tried again at the next.

    Args:
        folder: the run's.
        signals: what may ask for a checkpoint at any moment.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainingConfig,
        data: TrainingData,
        state: TrainingState,
        signals: Signals,
    ):
        self.folder, self.config, self.data = folder, config, data
        self.state, self.signals = state, signals
        self.unsaved: dict[str, dict] = {}  # name -> content that is still to be written
        self.last_step: StepState | None = None
        self.sums: Sums | None = None  # of the epoch's training
        self.exit_code = 0

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        """Ends a training that a signal or a death cut short, and says how to continue it.

        A signal's state is saved already; after the death of a loader process, or of another
        process, that of the last optimizer step is saved now. Other errors are raised; a loss that
        is no number with what could be used instead.
        """
        if isinstance(error, NonFiniteLoss):
            raise NonFiniteLoss(f"{error}; {self._advice()}") from None
        if isinstance(error, Interrupted):
            self.exit_code, can_continue = error.code, True
        elif isinstance(error, RuntimeError) and self._is_a_death(error):
            self.save_last_step()
            self.exit_code, can_continue = 1, (self.folder / LAST).exists()
        else:
            return False
        if can_continue and distributed.is_main():
            print(f"continue with: {continuing_command(sys.argv)}", flush=True)
        return True

    @staticmethod
    def _is_a_death(error: RuntimeError) -> bool:
        """Whether a process that this one needs has ended; torch tells by the message alone."""
        if is_loader_death(error):
            distributed.report_error(f"a loader process died: {error}")
        elif distributed.lost_a_process(error):
            distributed.report_error("another process has ended, so this one does")
        else:
            return False
        return True

    def _advice(self) -> str:
        finite = newest_finite(self.folder)
        if finite is None:
            return "try a lower --lr or --clip-grad; no checkpoint here has finite weights"
        return (
            f"the newest checkpoint with finite weights is {finite}: try --clip-grad with -c "
            f"{finite}, or begin from its weights, --weights {finite}, with a lower --lr"
        )

    def resume(self, path: Path) -> None:
        """Continues from a checkpoint; a file of the reference implementation serves as well."""
        state, data = self.state, self.data
        content = load_checkpoint(path, data.spec, state.model, data.split.class_names)
        warn_of_other_data(content, data.metadata["fingerprint"], path, SUBSETS)
        if "initial_weights" in content:
            data.metadata["initial_weights"] = content["initial_weights"]
        if content.get("progress"):
            check_list(path, content.get("fingerprint", {}), data.metadata["fingerprint"])
        state.restore(path, content, self.config.recipe)
        distributed.wait_for_all()  # everyone has read, now files may be renamed
        if path.parent.resolve() != self.folder.resolve():
            set_run_aside(self.folder)
        elif distributed.is_main():
            set_later_aside(self.folder, path, state.epoch)
        inside = ""
        if state.interrupted:
            inside = f" and {state.interrupted['result'].get('steps', 0)} steps of the next"
        print(f"continuing from {path}: {state.epoch} epochs done{inside}")
        for difference in changed_flags(content, self.config.recipe):
            print(f"note: {difference}")
        if content.get("seed", self.config.seed) != self.config.seed:
            print(f"warning: it was begun with --seed {content['seed']}, not {self.config.seed}")
        distributed.wait_for_all()

    def begin_epoch(self) -> Sums:
        """Sets order, crops and random numbers; returns the sums of what is already done."""
        self.data.train.dataset.set_epoch(self.state.epoch)
        stats = self.state.begin_epoch(self.data.train.batch_sampler, self.config.seed)
        self.sums = Sums(self._title(), self.state.device, stats)
        if self.last_step is not None:  # before a first step there is nothing new to save
            self.last_step = StepState(self.state.model, self.sums.total)
        return self.sums

    def _title(self) -> str:
        return f"epoch {self.state.epoch + 1}/{self.config.recipe.epochs}"

    def after_step(self, stats: EpochStats) -> None:
        """To be called after each optimizer step: saves if it is time, or a signal asks for it."""
        self.signals.notice_dead_workers_at_the_next_batch()
        self.last_step = StepState(self.state.model, self.sums.total)
        if self.config.save_steps and stats.steps % self.config.save_steps == 0:
            self._save_within_epoch()
        self.answer_signals()

    def after_validation_batch(self, number: int) -> None:
        """Answers signals for as long as all processes have batches; `number` from 1."""
        if number <= self.data.val.batch_sampler.common:
            self.answer_signals()

    def answer_signals(self) -> None:
        """Saves if a signal to any process asked for it, and raises Interrupted if to end."""
        self.signals.agree()
        if not self.signals.save and self.signals.exit_code is None:
            return
        self.signals.save = False
        saved = self._save_within_epoch()
        print(f"{'saved' if saved else 'NOT saved'}: {self.folder / LAST}", flush=True)
        if self.signals.exit_code is not None:
            raise Interrupted(self.signals.exit_code)

    def save_last_step(self) -> None:
        """Saves the state after the last optimizer step, when the batches since then are lost."""
        if self.last_step is None or not distributed.is_main():
            return
        self.last_step.restore(self.state.model)
        stats = as_stats(self.last_step.total)
        if self._broken_weights() or not math.isfinite(stats.loss_sum):
            return
        others = [None] * (distributed.world_size() - 1)
        states = [self.last_step.random_states, *others]
        self._write(self._content(stats, states), LAST)

    def save_epoch(self, val: EpochStats, ema: EpochStats | None) -> None:
        """Writes what belongs to the end of an epoch, if it is time or the best so far.

        The best go first: killed before the last, the epoch's end is run again from the checkpoint
        before it and found best again. The best average is a checkpoint with its weights.
        """
        is_best, is_best_average = self.state.note_best(val, ema)
        epoch, last = self.state.epoch, self.config.recipe.epochs
        is_time = epoch % self.config.save_freq == 0 or epoch == last or self.state.steps_left == 0
        if not (is_best or is_best_average or is_time):
            return
        self._check_weights()
        content = self._content(None, distributed.gather(random_states()))
        if not distributed.is_main():
            return
        if is_best:
            self.unsaved[BEST] = content
        if is_best_average:
            weights = {"state_dict": content["learner"]["ema"], "best_prec1": content["best_ema"]}
            self.unsaved[BEST_AVERAGE] = content | weights
        self._write_unsaved()
        if self._write(content, LAST) and self.config.keep:
            try:
                keep_newest(self.folder, epoch, self.config.keep)
            except OSError as error:
                print(f"warning: epoch {epoch} cannot be kept ({error})", flush=True)

    def finish(self) -> None:
        """At the end of a training: what could not be written makes its exit code 1."""
        if self.exit_code or not self.unsaved:
            return
        last = self.unsaved.pop(LAST, None)
        self._write_unsaved()
        if last is not None:
            self._write(last, LAST)
        if self.unsaved:
            self.exit_code = 1
            names = list(self.unsaved)
            distributed.report_error(
                f"{' and '.join(names)} cannot be written in {self.folder}: "
                f"{self.state.epoch} epochs are done, but "
                f"{', '.join(describe_held(self.folder / name) for name in names)}"
            )

    def _write_unsaved(self) -> None:
        """Tries the best ones that are still to be written."""
        for name in [name for name in self.unsaved if name != LAST]:
            if not self._write(self.unsaved[name], name):
                self.unsaved[name] = copy.deepcopy(self.unsaved[name])  # the weights will change

    def _broken_weights(self) -> list[str]:
        weights = self.state.model.state_dict()
        return [name for name, value in weights.items() if not value.isfinite().all()]

    def _check_weights(self) -> None:
        """Raises NonFiniteLoss for weights that no checkpoint is to hold."""
        if broken := self._broken_weights():
            raise NonFiniteLoss(f"{self._title()}: the weights of {broken[0]} are not finite")

    def _save_within_epoch(self) -> bool:
        stats = self.sums.read()
        self._check_weights()
        content = self._content(stats, distributed.gather(random_states()))
        return self._write(content, LAST) if distributed.is_main() else True

    def _content(self, stats: EpochStats | None, states: list) -> dict:
        """A checkpoint's content; `stats` within an epoch, None after it."""
        state, progress = self.state, None
        if stats is not None:
            batches: TrainingBatches = self.data.train.batch_sampler
            progress = {"result": asdict(stats), "permutation": batches.permutation}
        return make_checkpoint(
            self.data.spec,
            state.model,
            state.optimizer,
            state.schedule.state_dict(),
            state.epoch,
            **state.best,
            metadata=self.data.metadata,
        ) | {
            "learner": state.learner_dict(),
            "progress": progress,
            "random_states": states,
            "seed": self.config.seed,
            "flags": asdict(self.config.recipe),
        }

    def _write(self, content: dict, name: str) -> bool:
        try:
            save_atomically(content, self.folder / name)
        except OSError as error:
            self.unsaved[name] = content
            print(
                f"warning: {self.folder / name} cannot be written ({error}); the earlier file, if "
                "any, is whole, training continues, and the next save tries again",
                flush=True,
            )
            return False
        self.unsaved.pop(name, None)
        return True
