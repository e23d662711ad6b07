"""What the fine-tuning flags do to a step: each against its formula."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datasets.clips import IGNORED
from engine.config import Recipe
from engine.training.epoch import accumulate, take_step, train_one_epoch
from engine.training.log import Progress
from engine.training.state import TrainingState
from tests.engine.training.test_epoch import Mean, batches, normalize


class Training:
    """A model, its state and a recipe, with the two halves of a step."""

    def __init__(self, model, lr=0.5, frozen=(), **options):
        self.recipe = Recipe(batch_size=2, **options)
        self.state = TrainingState(
            model, torch.optim.SGD(model.parameters(), lr=lr), self.recipe, frozen
        )

    def accumulate(self, clips, labels):
        logits, loss = accumulate(self.state, clips, labels, normalize, self.recipe, is_last=True)
        return logits, loss.item()

    def take_step(self):
        take_step(self.state, self.recipe)

    def epoch(self, data):
        return train_one_epoch(self.state, data, normalize, self.recipe, Progress("epoch", 1000))


def step(training, clips, labels):
    logits, loss = training.accumulate(clips, labels)
    training.take_step()
    return logits, loss


def test_label_smoothing():
    model = Mean()
    ((clips, labels),) = batches(1)
    logits, loss = Training(model, label_smoothing=0.2).accumulate(clips, labels)
    target = F.one_hot(labels, 4) * 0.8 + 0.2 / 4
    expected = -(target * logits.log_softmax(-1)).sum()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_mixes_pictures_and_losses():
    model = Mean()
    ((clips, labels),) = batches(1, size=6, segments=2)
    torch.manual_seed(3)
    _, loss = Training(model, mixup=0.4).accumulate(clips, labels)
    torch.manual_seed(3)
    share = torch.distributions.Beta(0.4, 0.4).sample().item()
    share = max(share, 1 - share)
    other = torch.randperm(6)
    assert 0.5 <= share < 1 and not torch.equal(other, torch.arange(6))
    pictures = normalize(clips.flatten(0, 1)).unflatten(0, (6, 2))
    mixed = share * pictures + (1 - share) * pictures[other]
    logits = model(mixed.flatten(0, 1)).unflatten(0, (6, 2)).mean(dim=1)
    each = [F.cross_entropy(logits, target, reduction="sum") for target in (labels, labels[other])]
    expected = share * each[0] + (1 - share) * each[1]
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_clipping_bounds_the_change_of_the_weights():
    changes = []
    for limit in (None, 1e-3):
        torch.manual_seed(0)
        model = Mean()
        before = copy.deepcopy(model.state_dict())
        step(Training(model, lr=1.0, clip_grad=limit), *batches(1)[0])
        change = [(before[key] - value).flatten() for key, value in model.state_dict().items()]
        changes.append(torch.cat(change).norm().item())
    assert changes[0] > 1e-2 and changes[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_average_follows_the_weights():
    model = Mean()
    training = Training(model, ema=0.9)
    expected = None
    for clips, labels in batches(4):
        step(training, clips, labels)
        weight = model.fc.weight.detach().clone()
        expected = weight if expected is None else 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(training.state.average.module.fc.weight, expected)
    assert not torch.equal(expected, model.fc.weight)
    other = Training(Mean(), ema=0.9)
    other.state.restore(Path("x"), {"learner": training.state.learner_dict()}, other.recipe)
    restored, average = other.state.average, training.state.average
    assert torch.equal(restored.module.fc.weight, average.module.fc.weight)
    assert restored.steps == 4


class Seen(Mean):
    """Remembers the type that its layer computed in."""

    def forward(self, x):
        out = super().forward(x)
        self.dtype = out.dtype
        return out


@pytest.mark.parametrize(
    ("amp", "dtype"),
    [("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_mixed_precision_computes_in_its_type_and_steps_alike(amp, dtype):
    torch.manual_seed(0)
    model = Seen()
    exact = copy.deepcopy(model)
    ((clips, labels),) = batches(1)
    logits, loss = step(Training(model, amp=amp, clip_grad=5.0), clips, labels)
    _, expected = step(Training(exact), clips, labels)
    assert model.dtype == dtype and logits.dtype == torch.float32
    assert loss == pytest.approx(expected, rel=0.02)
    assert model.fc.weight.dtype == torch.float32
    torch.testing.assert_close(model.fc.weight, exact.fc.weight, rtol=0.02, atol=2e-3)


def test_fp16_scales_the_loss_skips_overflows_and_remembers_its_scale():
    model = Mean()
    training = Training(model, amp="fp16")
    begun = training.state.scaler.get_scale()
    assert begun > 1
    clips, labels = batches(1)[0]
    training.accumulate(clips, labels)
    model.fc.weight.grad[0, 0] = float("inf")  # an overflow
    before = model.fc.weight.detach().clone()
    training.take_step()
    assert torch.equal(model.fc.weight, before)
    assert training.state.scaler.get_scale() == begun / 2
    other = Training(Mean(), amp="fp16")
    other.state.restore(Path("x"), {"learner": training.state.learner_dict()}, other.recipe)
    assert other.state.scaler.get_scale() == begun / 2


def test_padding_weighs_and_counts_nothing():
    """A batch with one real video equals that video in a batch of its own."""
    ((clips, labels),) = batches(1)
    models = [Mean(), Mean()]
    models[1].load_state_dict(models[0].state_dict())
    padded = torch.stack([labels[0], torch.tensor(IGNORED)])
    results = []
    for model, batch in zip(models, ((clips[:1], labels[:1]), (clips, padded)), strict=True):
        results.append(Training(model).epoch([batch]))
    torch.testing.assert_close(models[0].fc.weight, models[1].fc.weight)
    assert results[0].videos == results[1].videos == 1
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)


def test_frozen_modules_stay_in_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    training = Training(model, frozen=[model[0]])
    training.state.train_mode()
    assert not model[0].training and model[1].training
