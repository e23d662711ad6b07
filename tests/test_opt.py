"""Optimizers' recipes and learning-rate schedules."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from opt import MovingAverage, Schedule, adamw, fit_to_fused, sgd


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


def test_a_files_schedule_leaves_nothing_at_the_class():
    schedule = Schedule(sgd([parameter()], 0.1, 0.9, 0), "plateau", epochs=10)
    state = schedule.state_dict()
    state["ramp"]["lr_lambdas"] = [{"foreign": 1}]
    schedule.load_state_dict(state)
    assert not vars(Schedule._factor)
    assert schedule.state_dict()["ramp"]["lr_lambdas"] == [{}]


def test_unknown_schedule():
    with pytest.raises(ValueError, match="plateau, cosine"):
        Schedule(sgd([parameter()], 0.1, 0.9, 0), "step", 10)


def test_sgd_is_one_kernel_on_gpus_alone():
    with FakeTensorMode():
        on_gpu = torch.nn.Parameter(torch.empty(3, device="cuda"))
        groups = [{"params": [on_gpu], "lr": 0.1}]
    assert sgd([on_gpu], 0.1, 0.9, 0).param_groups[0]["fused"] is True
    assert sgd(groups, 0.1, 0.9, 0).param_groups[0]["fused"] is True
    assert sgd([parameter()], 0.1, 0.9, 0).param_groups[0]["fused"] is None


def test_the_average_is_that_of_torch():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.BatchNorm1d(3))
    ours = MovingAverage(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = sgd(model.parameters(), 0.1, 0.9, 0)
    for _ in range(4):
        model(torch.randn(4, 2, 5)).pow(3).sum().backward()
        optimizer.step()
        ours.update(model)
        theirs.update_parameters(model)
    assert ours.steps == int(theirs.n_averaged) == 4
    expected = theirs.module.state_dict()
    for key, value in ours.module.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert not torch.equal(ours.module[0].weight, model[0].weight)


def fused_sgd(parameters, lr, momentum, weight_decay):
    return torch.optim.SGD(parameters, lr, momentum, 0.9, weight_decay, fused=True)


@pytest.mark.parametrize("make", [sgd, fused_sgd, adamw])
def test_a_contiguous_state_fits_weights_of_another_memory_format(make):
    """Saved with contiguous weights, loaded with channels last: the same steps as without that."""
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3, 2, 2, 2) for _ in range(4)]
    begun = torch.randn(4, 3, 2, 2, 2)
    weights = []
    for cut in (False, True):
        weight = torch.nn.Parameter(begun.clone())
        optimizer = make([weight], 0.1, 0.9, 1e-3)
        for number, gradient in enumerate(gradients):
            if cut and number == 2:
                state = optimizer.state_dict()
                weight = weight.detach().to(memory_format=torch.channels_last_3d)
                weight = torch.nn.Parameter(weight)
                optimizer = make([weight], 0.1, 0.9, 1e-3)
                optimizer.load_state_dict(state)
                fit_to_fused(optimizer)
            weight.grad = torch.empty_like(weight).copy_(gradient)
            optimizer.step()
        weights.append(weight)
    assert weights[0].stride() != weights[1].stride()
    assert torch.equal(*weights)


def test_what_was_frozen_joins_a_fused_sgd():
    first, second = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = fused_sgd([first, second], 0.1, 0.9, 0)
    first.grad = torch.ones(2)
    optimizer.step()
    resumed = fused_sgd([first, second], 0.1, 0.9, 0)
    resumed.load_state_dict(optimizer.state_dict())
    fit_to_fused(resumed)
    first.grad = second.grad = torch.ones(2)
    resumed.step()
    torch.testing.assert_close(second.detach(), torch.full((2,), 1 - 0.1 * 0.1))
