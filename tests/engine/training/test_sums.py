"""Sums on the device: what they count, when they are read, and a loss that is no number."""

import copy
import multiprocessing
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.clips import IGNORED
from engine.config import Recipe
from engine.metrics import EpochStats
from engine.training import epoch as epoch_module
from engine.training import sums as sums_module
from engine.training.epoch import NonFiniteLoss, take_step, train_one_epoch, validate
from engine.training.log import Progress
from engine.training.state import StepState, TrainingState
from engine.training.sums import Sums, as_stats
from models import create_model
from opt import adamw
from tests.engine.training.test_epoch import Mean, batches, normalize

ARCH = "rgb_tiny3D16f_bert10_FRMB"
CPU = torch.device("cpu")


def fused_sgd(parameters, lr, momentum, weight_decay):
    how = {"momentum": momentum, "dampening": 0.9, "weight_decay": weight_decay}
    return torch.optim.SGD(parameters, lr, **how, fused=True)


OPTIMIZERS = {"sgd": fused_sgd, "adamw": adamw}


class NoWaiting(TorchDispatchMode):
    """Raises on what a GPU would be waited for: numbers and shapes that depend on its results."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "_to_cpu")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def read_alone(monkeypatch):
    """Numbers leave the device in `as_stats` alone; returns the list of what it was asked for."""
    reads, tolist = [], torch.Tensor.tolist

    def read(values: torch.Tensor) -> EpochStats:
        reads.append(values)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", tolist)
            return as_stats(values)

    def forbidden(*_: object) -> None:
        raise AssertionError("numbers left the device")

    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, forbidden)
    for module in (sums_module, epoch_module):
        monkeypatch.setattr(module, "as_stats", read)
    return reads


def new_state(model, make, read_steps, **how) -> tuple[TrainingState, Recipe]:
    recipe = Recipe(batch_size=2, **how)
    state = TrainingState(model, make(model.parameters(), 0.1, 0.9, 1e-3), recipe)
    state.read_steps = read_steps
    return state, recipe


def epoch(state, recipe, data, prepare=normalize, print_freq=1000, after_step=()) -> EpochStats:
    progress = Progress("epoch 1/1", print_freq)
    return train_one_epoch(state, data, prepare, recipe, progress, None, after_step)


def without_times(stats: EpochStats) -> EpochStats:
    return replace(stats, loading=0.0, computing=0.0)


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def test_a_batch_is_counted_without_its_padding():
    logits = torch.eye(5)[[0, 1, 2, 3]] + torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1])
    labels = torch.tensor([0, 0, 4, IGNORED])  # first, second, last, padding
    sums = Sums("epoch", CPU)
    sums.add(logits, labels, torch.tensor(8.0), segments=2)
    sums.add(logits[:1], labels[:1], torch.tensor(1.0), segments=2)
    sums.add_times(loading=1.0, computing=3.0)
    assert as_stats(sums.total) == EpochStats()
    sums.pool(steps=1)
    expected = EpochStats(4, 8, 1, 9.0, top1_hits=2, top3_hits=3, loading=1.0, computing=3.0)
    assert sums.read() == sums.stats == expected
    resumed = Sums("epoch", CPU, expected)
    resumed.pool()
    assert resumed.read() == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_are_wrong(bad):
    logits = torch.eye(4)
    logits[:, 3] = bad
    sums = Sums("epoch", CPU)
    sums.add(logits, torch.arange(4), torch.tensor(1.0), segments=1)
    sums.pool()
    assert sums.read() == EpochStats(videos=4, clips=4, loss_sum=1.0)


def test_the_total_ends_with_the_first_bad_step():
    sums = Sums("epoch 3/9", CPU, EpochStats(steps=4))
    for loss in (1.0, float("inf"), float("nan"), 2.0):
        sums.add(torch.zeros(1, 4), torch.tensor([0]), torch.tensor(loss), segments=1)
        sums.pool(steps=1)
        assert sums.bad.item() == (loss != 1.0)
    assert sums.stats.steps == 8
    with pytest.raises(NonFiniteLoss, match="epoch 3/9: the loss is inf at step 6"):
        sums.read()


def training_clips(spec, number: int):
    size = (spec.frames, spec.input.crop, spec.input.crop, 3)
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randint(256, (2, 1, *size), dtype=torch.uint8, generator=generator),
            torch.randint(4, (2,), generator=generator),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_waited_for_between_reads_and_nothing_changes(name, read_alone):
    """A whole network with accumulation, clipping, an average and the state after each step."""
    torch.manual_seed(0)
    models = [create_model(ARCH, 4)]
    models.append(copy.deepcopy(models[0]))
    how = {"iter_size": 2, "clip_grad": 1.0, "ema": 0.9}
    data, states, results, steps = training_clips(models[0].spec, 9), [], [], []
    for model, read_steps in zip(models, (1, 4), strict=True):
        torch.manual_seed(1)
        state, recipe = new_state(model, OPTIMIZERS[name], read_steps, **how)
        sums = Sums("epoch 1/1", CPU)
        keep = [lambda stats, m=model, s=sums: steps.append(StepState(m, s.total))]
        progress = Progress("epoch 1/1", None)
        with NoWaiting():
            read_alone.clear()
            stats = train_one_epoch(state, data, normalize, recipe, progress, sums, keep)
        # A read at each fourth step and one at the end.
        assert len(read_alone) == (6 if read_steps == 1 else 2)
        states.append(state)
        results.append(without_times(stats))
    assert results[0] == results[1] and results[0].steps == 5 and results[0].videos == 18
    assert same(*models) and same(*(state.average.module for state in states))
    for early, late in zip(steps[:5], steps[5:], strict=True):
        assert torch.equal(early.total[:6], late.total[:6])
        assert all(map(torch.equal, early.buffers, late.buffers))


def test_a_validation_is_waited_for_at_its_end_alone(read_alone):
    model = create_model(ARCH, 4)
    with NoWaiting():
        validate(model, training_clips(model.spec, 3), normalize, Progress("check", None))
    assert len(read_alone) == 1


def test_a_line_shows_all_steps_before_it(capsys):
    """Whether the loss is read at each step, or for the line."""
    torch.manual_seed(0)
    first = Mean()
    lines = []
    for read_steps in (1, 100):
        state, recipe = new_state(copy.deepcopy(first), adamw, read_steps)
        epoch(state, recipe, batches(5), print_freq=2)
        lines.append([line.split(", data")[0] for line in capsys.readouterr().out.splitlines()])
    assert lines[0] == lines[1] and len(lines[0]) == 2


def spoiled(data, number: int):
    """The batches with one of white clips, and a `prepare` that makes those no numbers."""
    data[number] = (torch.full_like(data[number][0], 255), data[number][1])

    def prepare(clips):
        white = (clips == 255).flatten(1).all(dim=1)
        return normalize(clips).masked_fill(white[:, None, None, None, None], float("nan"))

    return data, prepare


@pytest.mark.parametrize("read_steps", [1, 4, 100])
@pytest.mark.parametrize("how", [{}, {"clip_grad": 1.0}, {"amp": "fp16"}, {"amp": "bf16"}])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_loss_never_reaches_the_weights(name, how, read_steps):
    torch.manual_seed(0)
    model = Mean()
    expected = copy.deepcopy(model)
    state, recipe = new_state(expected, OPTIMIZERS[name], 1, iter_size=2, **how)
    data, prepare = spoiled(batches(13), number=4)
    epoch(state, recipe, data[:4], prepare)
    state, recipe = new_state(model, OPTIMIZERS[name], read_steps, iter_size=2, **how)
    seen = []
    with pytest.raises(NonFiniteLoss, match="epoch 1/1: the loss is nan at step 3$"):
        epoch(state, recipe, data, prepare, after_step=[lambda stats: seen.append(stats.steps)])
    assert same(model, expected)
    assert len(seen) == {1: 2, 4: 3, 100: 7}[read_steps]  # steps before it was noticed


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_scale_of_fp16_skips_its_own_steps_too(name):
    """Overflows at the first step and the third leave no trace but the scale's."""
    torch.manual_seed(0)
    models = [Mean()]
    models.append(copy.deepcopy(models[0]))
    bad = torch.zeros(())
    for model, overflows in zip(models, ((), (0, 2)), strict=True):
        state, recipe = new_state(model, OPTIMIZERS[name], 100, amp="fp16")
        begun = state.scaler.get_scale()
        steps = iter(batches(3))
        for number in range(3 + len(overflows)):
            scale = state.scaler.get_scale()
            x, labels = next(steps) if number not in overflows else batches(1)[0]
            logits = model(normalize(x.flatten(0, 1)))
            state.scaler.scale(nn.functional.cross_entropy(logits, labels)).backward()
            if number in overflows:
                model.fc.weight.grad[0, 0] = float("inf")
            take_step(state, recipe, bad)
            assert state.scaler.get_scale() == (scale / 2 if number in overflows else scale)
        assert state.scaler.get_scale() == begun / 2 ** len(overflows)
    torch.testing.assert_close(models[0].fc.weight, models[1].fc.weight, rtol=1e-6, atol=1e-7)


def one_of_two(rank: int, store: str, name: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    state, recipe = new_state(Mean(), OPTIMIZERS[name], read_steps=4)
    data, prepare = batches(6), normalize
    if rank == 1:
        data, prepare = spoiled(data, number=2)
    weights = []
    keep = [lambda stats: weights.append(state.model.fc.weight.tolist())]
    try:
        epoch(state, recipe, data, prepare, after_step=keep)
    except NonFiniteLoss as error:
        results.put((str(error), weights))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_loss_of_one_process_is_one_of_all(name, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    target = (str(tmp_path / "store"), name, results)
    processes = [context.Process(target=one_of_two, args=(rank, *target)) for rank in range(2)]
    for process in processes:
        process.start()
    (message, weights), other = (results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert message == "epoch 1/1: the loss is nan at step 3" and other == (message, weights)
    assert len(weights) == 3 and weights[0] != weights[1] == weights[2]
