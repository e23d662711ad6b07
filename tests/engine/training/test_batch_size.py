"""The batch size that fits: divisors, bytes, processes, and a training that is continued."""

from dataclasses import replace

import pytest
import torch

from engine import UsageError
from engine.config import DataConfig, Recipe, TrainingConfig
from engine.training import batch_size
from engine.training.batch_size import (
    USABLE,
    Needs,
    PeakMemory,
    can_step,
    fit_batch_size,
    free_bytes,
    largest_fitting,
    step_needs,
)
from models import get_arch

CPU = torch.device("cpu")
BERT = "rgb_tiny3D16f_bert10_FRMB"
CONFIG = TrainingConfig(DataConfig(), Recipe(batch_size=4, iter_size=6), BERT, auto_batch=True)


@pytest.fixture
def memory(monkeypatch):
    """Sets what a step needs and what is free, in bytes."""

    def set_memory(video: int, fixed: int, free: int) -> None:
        monkeypatch.setattr(batch_size, "step_needs", lambda spec, recipe: Needs(video, fixed))
        monkeypatch.setattr(batch_size, "free_bytes", lambda device: free)

    return set_memory


def fit(config=CONFIG, checkpoint=None) -> tuple[int, int]:
    recipe = fit_batch_size(config, get_arch(BERT), CPU, checkpoint).recipe
    return recipe.batch_size, recipe.iter_size


@pytest.mark.parametrize(
    ("effective", "limit", "size"),
    [(24, 100, 24), (24, 23, 12), (24, 11, 8), (24, 7, 6), (24, 1, 1), (24, 0, 0), (7, 6, 1)],
)
def test_the_largest_divisor_that_fits(effective, limit, size):
    assert largest_fitting(effective, lambda videos: videos <= limit) == size


def test_what_is_tried_is_halved():
    tried = []
    assert largest_fitting(24, lambda videos: tried.append(videos) or videos <= 2, 2) == 1
    assert tried == [24, 12, 6, 3, 1]


@pytest.mark.parametrize(("free", "chosen"), [(10**6, (24, 1)), (1000, (6, 4)), (300, (1, 24))])
def test_the_effective_batch_stays(memory, capsys, free, chosen):
    memory(video=100, fixed=100, free=free)
    assert fit() == chosen
    size, number = chosen
    assert f"--batch-size auto: {size}, --iter-size {number} (" in capsys.readouterr().out
    assert 100 + size * 100 <= USABLE * free


def test_not_even_one_video_fits(memory):
    memory(video=10**9, fixed=2 * 10**9, free=3 * 10**9)
    with pytest.raises(UsageError, match=r"about 3.0 GB .* 3.0 GB free, 70%.*--amp bf16"):
        fit()


def test_all_processes_take_the_smallest(memory, monkeypatch):
    memory(video=100, fixed=100, free=10**6)
    monkeypatch.setattr(batch_size.distributed, "gather", lambda value: [value, 3, 8])
    assert fit() == (3, 8)


def test_processes_share_the_memory_of_a_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "MEMORY_INFO", tmp_path / "meminfo")
    with pytest.raises(UsageError, match="give a number"):
        free_bytes(CPU)
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert free_bytes(CPU) == 4000 * 1024
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(CPU) == 1000 * 1024


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ({"batch_size": 3, "iter_size": 8}, (3, 8)),
        ({"batch_size": 3, "iter_size": 9}, (24, 1)),  # another effective batch
        ({"batch_size": "x", "iter_size": 8}, (24, 1)),
        ({"batch_size": -3, "iter_size": -8}, (24, 1)),
        ([], (24, 1)),
    ],
)
def test_a_continued_training_keeps_its_batches(memory, tmp_path, flags, chosen):
    memory(video=100, fixed=100, free=10**6)
    torch.save({"flags": flags}, tmp_path / "last.pth.tar")
    assert fit(checkpoint=tmp_path / "last.pth.tar") == chosen


@pytest.mark.parametrize(
    "arch", [BERT, "rgb_tiny3D16f_FRMB_lstm", "rgb_tiny3D16f_FRMB_NLB_concatenation"]
)
@pytest.mark.parametrize("how", [{"num_seg": 2}, {"freeze_backbone": True}])
def test_what_is_counted_without_data_is_what_a_step_takes(arch, how):
    spec, recipe = get_arch(arch), Recipe(**how)
    needs = step_needs(spec, recipe)
    model = batch_size._new_model(spec, recipe, CPU)
    with PeakMemory([*model.parameters(), *model.buffers()]) as memory:
        batch_size._backward(model, spec, recipe, 3)
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    assert needs.fixed >= weights
    assert 0.9 < 3 * needs.video / memory.peak < 1.1


def test_memory_that_is_given_back_counts_no_more():
    known = torch.zeros(1000)
    with PeakMemory([known]) as memory:
        known.add_(1)
        kept = torch.zeros(100).view(10, 10)
        for _ in range(5):
            torch.zeros(50)
    assert (memory.now, memory.peak) == (400, 600)
    del kept
    assert memory.now == 0


def test_less_is_needed_for_checkpointing_and_half_precision_more_for_an_average():
    spec = get_arch("rgb_resneXt3D64f101_bert10_FRMB")
    plain = step_needs(spec, Recipe())
    assert step_needs(spec, Recipe(activation_checkpointing=True)).video < 0.7 * plain.video
    assert step_needs(spec, Recipe(amp="bf16")) == replace(plain, video=plain.video // 2)
    assert step_needs(spec, Recipe(ema=0.9)).fixed > plain.fixed


def test_a_lack_of_memory_in_a_step_is_found(monkeypatch):
    spec, recipe = get_arch(BERT), Recipe()
    state = torch.get_rng_state()
    assert can_step(spec, recipe, 1, CPU)
    assert torch.equal(torch.get_rng_state(), state)

    def lack(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batch_size, "_backward", lack)
    assert not can_step(spec, recipe, 1, CPU)
