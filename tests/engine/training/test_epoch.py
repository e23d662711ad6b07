"""One pass: accumulation of gradients, several segments, and a loss that is no number."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.config import Recipe
from engine.training.epoch import (
    NonFiniteLoss,
    network_input,
    train_one_epoch,
    validate,
    video_logits,
)
from engine.training.log import Progress
from engine.training.state import TrainingState


class Mean(nn.Module):
    """(N, C, T, H, W) -> logits from the channels' means; cheap, and linear."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(x.mean(dim=(2, 3, 4)))


def normalize(clips):
    return clips.permute(0, 4, 1, 2, 3).float() / 255


def batches(number: int, size: int = 2, segments: int = 1):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randint(
                256, (size, segments, 2, 4, 4, 3), dtype=torch.uint8, generator=generator
            ),
            torch.randint(4, (size,), generator=generator),
        )
        for _ in range(number)
    ]


def train(model, data, iter_size, batch_size=2, max_steps=None):
    recipe = Recipe(batch_size=batch_size, iter_size=iter_size)
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.5), recipe)
    state.steps_left = max_steps
    return train_one_epoch(state, data, normalize, recipe, Progress("epoch 1/1", 1000))


def test_the_last_incomplete_group_steps_weighted_by_its_size():
    model, data = Mean(), batches(5)
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.5)
    for group in (data[:2], data[2:4], data[4:]):
        optimizer.zero_grad()
        for clips, labels in group:
            logits = expected(normalize(clips.flatten(0, 1)))
            (F.cross_entropy(logits, labels) / 2).backward()
        optimizer.step()
    result = train(model, data, iter_size=2)
    assert result.steps == 3 and result.videos == 10
    torch.testing.assert_close(model.fc.weight, expected.fc.weight)


def test_accumulating_equals_a_larger_batch():
    data = batches(4)
    whole = (torch.cat([c for c, _ in data]), torch.cat([labels for _, labels in data]))
    small, large = Mean(), Mean()
    large.load_state_dict(small.state_dict())
    train(small, data, iter_size=4)
    train(large, [whole], iter_size=1, batch_size=8)
    torch.testing.assert_close(small.fc.weight, large.fc.weight)


def test_max_steps_stops_the_epoch():
    assert train(Mean(), batches(8), iter_size=2, max_steps=3).steps == 3


def test_logits_of_segments_are_averaged():
    model = Mean()
    ((clips, labels),) = batches(1, size=3, segments=4)
    inputs = network_input(clips, normalize, torch.device("cpu"))
    logits = video_logits(model, inputs, segments=4, amp="off")
    each = torch.stack([model(normalize(clips[:, s])) for s in range(4)])
    torch.testing.assert_close(logits, each.mean(dim=0))
    result = train(model, [(clips, labels)], iter_size=1)
    assert (result.videos, result.clips) == (3, 12)


def test_a_bad_loss_stops_before_the_weights_change():
    model = Mean()
    nn.init.constant_(model.fc.bias, float("nan"))
    before = model.fc.weight.clone()
    with pytest.raises(NonFiniteLoss, match=r"epoch 1/1: the loss is nan at step 1"):
        train(model, batches(2), iter_size=1)
    assert torch.equal(model.fc.weight, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_logit_that_is_no_number_ends_a_validation(bad):
    """One of class 3 leaves the loss of other classes finite if it is -inf."""
    model = Mean()
    with torch.no_grad():
        model.fc.bias[3] = bad
    ((clips, labels),) = batches(1)
    with pytest.raises(NonFiniteLoss, match="check: the loss or a logit is not finite"):
        validate(model, [(clips, labels % 3)], normalize, Progress("check", None))


def test_the_time_of_the_only_step_counts():
    stats = train(Mean(), batches(4), iter_size=1, max_steps=1)
    assert stats.steps == 1 and stats.computing > 1e-5 and stats.clips_per_second < 1e6


def test_validation_changes_nothing_and_measures():
    model, data = Mean(), batches(3)
    before = copy.deepcopy(model.state_dict())
    result = validate(model, data, normalize, Progress("validation", 1000))
    logits = torch.cat([model(normalize(clips.flatten(0, 1))) for clips, _ in data])
    labels = torch.cat([labels for _, labels in data])
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.top1 == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert result.loading >= 0 and result.computing > 0


def test_lines_without_a_terminal(capsys):
    progress = Progress("epoch 2/9", print_freq=2)
    model = Mean()
    validate(model, batches(5), normalize, progress)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("]")[0] for line in lines] == ["epoch 2/9 [2/5", "epoch 2/9 [4/5"]
    assert all("loss" in line and "top-1" in line and "s left" in line for line in lines)


@pytest.mark.filterwarnings("error")
def test_an_interrupted_validation_ends_without_another_error():
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(Mean(), batches(5), normalize, Progress("check", None), after_batch=interrupt)
    gc.collect()
