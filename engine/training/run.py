"""A whole training: begin or resume; for each epoch train, validate, log, save. Or only validate.

python two_stream_bert2.py --arch rgb_I3D64f_bert2 --dataset hmdb51
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from engine import distributed
from engine.checkpoint import load_checkpoint, was_chosen_by
from engine.config import TrainingConfig
from engine.data import warn_of_other_data
from engine.files import run_folder
from engine.speed import Speed, choose_speed
from engine.training.batch_size import fit_batch_size
from engine.training.build import TrainingData, build_data, build_model, build_state
from engine.training.checkpoints import CheckpointManager
from engine.training.epoch import train_one_epoch, validate
from engine.training.folder import choose_checkpoint, owned, set_run_aside
from engine.training.log import (
    LoadingAdvice,
    Progress,
    RunLog,
    describe_end,
    describe_start,
    epoch_line,
)
from engine.training.signals import Signals, this_command
from engine.training.state import MakeOptimizer
from models import ArchSpec, VideoNet, get_arch
from models.backbones import BACKBONES


def run_training(config: TrainingConfig, make_optimizer: MakeOptimizer) -> int:
    """Trains, or with `--evaluate` only validates, as the flags say; returns the exit code.

    `make_optimizer` takes (parameters or groups of them, lr, momentum, weight_decay).
    """
    spec = get_arch(config.arch)
    folder = run_folder(config.output, config.data.dataset, spec.name, config.data.split)
    if config.evaluate:  # which writes nothing, so another training may go on
        return train_all_epochs(config, make_optimizer, folder)
    with owned(folder):
        return train_all_epochs(config, make_optimizer, folder)


def train_all_epochs(config: TrainingConfig, make_optimizer: MakeOptimizer, folder: Path) -> int:
    """The same, in the run's folder."""
    spec = get_arch(config.arch)
    checkpoint = choose_checkpoint(config, folder)
    config = replace(config, resume=checkpoint and (config.resume or "last"))
    # device, data
    device = distributed.choose_device(config.data.device)
    factorised = BACKBONES[spec.backbone].factorised and not config.evaluate
    speed = choose_speed(config.computing, device, factorised)
    config = complete(config, spec, device, speed, checkpoint)
    recipe = config.recipe
    data = build_data(config, spec, device, speed)
    # seed, model, optimizer
    torch.manual_seed(config.seed)
    model = build_model(config, data, device, speed)
    if config.evaluate:
        return evaluate(config, data, model, checkpoint)
    state = build_state(config, model, make_optimizer, speed, len(data.train))
    progress = partial(Progress, print_freq=config.print_freq)
    advice = LoadingAdvice(data.remedies, config.data.workers)
    with Signals() as signals, CheckpointManager(folder, config, data, state, signals) as manager:
        check = partial(
            validate,
            loader=data.val,
            prepare=data.prepare,
            amp=recipe.amp,
            after_batch=manager.after_validation_batch,
        )
        # resume
        if checkpoint is not None:
            manager.resume(checkpoint)
        else:
            set_run_aside(folder)
        print(describe_start(state, config, data.split), flush=True)
        with RunLog(folder, state.epoch, config.flags() | {"command": this_command()}) as log:
            while state.epoch < recipe.epochs and state.steps_left != 0:
                # train
                title, lr = f"epoch {state.epoch + 1}/{recipe.epochs}", state.lr
                sums = manager.begin_epoch()
                shown, after = progress(title), [advice.check, manager.after_step]
                train = train_one_epoch(
                    state, data.train, data.prepare, recipe, shown, sums, after, data.augment
                )
                advice.check(train, whole_epoch=True)
                # validate
                distributed.share_buffers(model)
                val, ema = check(model, progress=progress(f"{title} validation")), None
                if state.average is not None:
                    shown = progress(f"{title} average's validation")
                    ema = check(state.average.module, progress=shown)
                # schedule, log, checkpoint
                state.schedule.step(val.loss)
                print(epoch_line(state.epoch, recipe.epochs, lr, train, val, ema), flush=True)
                log.epoch(state.epoch, lr, train, val, ema)
                state.epoch += 1
                manager.save_epoch(val, ema)
        log.plot()
        print(describe_end(state, config, folder))
        manager.finish()
    return manager.exit_code


def complete(
    config: TrainingConfig,
    spec: ArchSpec,
    device: torch.device,
    speed: Speed,
    checkpoint: Path | None,
) -> TrainingConfig:
    """The same training with what its flags leave to the device: number type, batch size."""
    config = replace(config, recipe=replace(config.recipe, amp=speed.amp))
    if config.auto_batch and not config.evaluate:
        config = fit_batch_size(config, spec, device, checkpoint)
    return config


def evaluate(config: TrainingConfig, data: TrainingData, model: VideoNet, path: Path) -> int:
    """Validates a checkpoint and prints the result; returns the exit code."""
    content = load_checkpoint(path, data.spec, model, data.split.class_names)
    warn_of_other_data(content, data.metadata["fingerprint"], path, ("val",))
    progress = Progress("validation", config.print_freq)
    val = validate(model, data.val, data.prepare, progress, config.recipe.amp)
    chosen = was_chosen_by(content, path, data.split)
    print(
        f"{path}: loss {val.loss:.4f}, top-1 {val.top1:.2f} %, top-3 {val.top3:.2f} % "
        f"({val.videos} videos, centre crop of the central clip)"
        + "; its epoch was chosen on these videos"
        * chosen
    )
    return 0
