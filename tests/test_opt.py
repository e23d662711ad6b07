"""Optimizers' recipes and learning-rate schedules."""

import pytest
import torch

from opt import Schedule, adamw, sgd


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([1.0]))


def rates(schedule: Schedule, optimizer, losses) -> list[float]:
    seen = []
    for loss in losses:
        seen.append(round(optimizer.param_groups[0]["lr"], 9))
        schedule.step(loss)
    return seen


def test_recipes():
    group = sgd([parameter()], 1e-2, 0.9, 1e-3).param_groups[0]
    assert (group["momentum"], group["dampening"], group["weight_decay"]) == (0.9, 0.9, 1e-3)
    group = adamw([parameter()], 1e-5, 0.9, 1e-3).param_groups[0]
    assert (group["betas"], group["lr"], group["weight_decay"]) == ((0.9, 0.999), 1e-5, 1e-3)


def test_plateau_waits_five_epochs_and_divides_by_ten():
    optimizer = sgd([parameter()], 0.1, 0.9, 0)
    schedule = Schedule(optimizer, "plateau", epochs=20)
    assert rates(schedule, optimizer, [1.0] * 9) == [0.1] * 7 + [0.01] * 2


def test_warm_up_then_plateau():
    optimizer = sgd([parameter()], 0.1, 0.9, 0)
    schedule = Schedule(optimizer, "plateau", epochs=20, warmup_epochs=1)
    assert rates(schedule, optimizer, [1.0] * 9) == [0.05] + [0.1] * 7 + [0.01]


def test_cosine_falls_from_the_full_rate_towards_zero():
    optimizer = adamw([parameter()], 0.1, 0.9, 0)
    schedule = Schedule(optimizer, "cosine", epochs=6, warmup_epochs=2)
    seen = rates(schedule, optimizer, [1.0] * 6)
    assert seen[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1], abs=1e-8)
    assert seen[2:] == sorted(seen[2:], reverse=True)
    assert seen[4] == pytest.approx(0.05) and 0 < seen[5] < 0.02


@pytest.mark.parametrize("kind", ["plateau", "cosine"])
def test_a_restored_schedule_goes_on_alike(kind):
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]
    optimizer = sgd([parameter()], 0.1, 0.9, 0)
    schedule = Schedule(optimizer, kind, epochs=10, warmup_epochs=2)
    whole = rates(schedule, optimizer, losses)
    optimizer = sgd([parameter()], 0.1, 0.9, 0)
    schedule = Schedule(optimizer, kind, epochs=10, warmup_epochs=2)
    first = rates(schedule, optimizer, losses[:5])
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer = sgd([parameter()], 0.1, 0.9, 0)
    schedule = Schedule(optimizer, kind, epochs=10, warmup_epochs=2)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert first + rates(schedule, optimizer, losses[5:]) == whole


def test_unknown_schedule():
    with pytest.raises(ValueError, match="plateau, cosine"):
        Schedule(sgd([parameter()], 0.1, 0.9, 0), "step", 10)
