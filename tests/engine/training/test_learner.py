"""What the fine-tuning flags do to a step: each against its formula."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datasets.clips import IGNORED
from engine.learner import Learner
from engine.report import Progress
from engine.training.epoch import train_one_epoch
from tests.engine.training.test_epoch import CPU, Mean, batches, normalize


def learner_of(model, lr=0.5, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Learner(model, optimizer, normalize, CPU, batch_size=2, **options)


def step(learner, clips, labels):
    logits, loss = learner.accumulate(clips, labels, last=True)
    learner.step()
    return logits, loss


def test_label_smoothing():
    model = Mean()
    ((clips, labels),) = batches(1)
    logits, loss = learner_of(model, label_smoothing=0.2).accumulate(clips, labels, last=True)
    target = F.one_hot(labels, 4) * 0.8 + 0.2 / 4
    expected = -(target * logits.log_softmax(-1)).sum()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_mixes_pictures_and_losses():
    model = Mean()
    ((clips, labels),) = batches(1, size=6, segments=2)
    torch.manual_seed(3)
    _, loss = learner_of(model, mixup=0.4).accumulate(clips, labels, last=True)
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
        step(learner_of(model, lr=1.0, clip_grad=limit), *batches(1)[0])
        change = [(before[key] - value).flatten() for key, value in model.state_dict().items()]
        changes.append(torch.cat(change).norm().item())
    assert changes[0] > 1e-2 and changes[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_average_follows_the_weights():
    model = Mean()
    learner = learner_of(model, ema=0.9)
    expected = None
    for clips, labels in batches(4):
        step(learner, clips, labels)
        weight = model.fc.weight.detach().clone()
        expected = weight if expected is None else 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(learner.average.module.fc.weight, expected)
    assert not torch.equal(expected, model.fc.weight)
    other = learner_of(Mean(), ema=0.9)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(other.average.module.fc.weight, learner.average.module.fc.weight)
    assert int(other.average.n_averaged) == 4


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
    logits, loss = step(learner_of(model, amp=amp, clip_grad=5.0), clips, labels)
    _, expected = step(learner_of(exact), clips, labels)
    assert model.dtype == dtype and logits.dtype == torch.float32
    assert loss == pytest.approx(expected, rel=0.02)
    assert model.fc.weight.dtype == torch.float32
    torch.testing.assert_close(model.fc.weight, exact.fc.weight, rtol=0.02, atol=2e-3)


def test_fp16_scales_the_loss_skips_overflows_and_remembers_its_scale():
    model = Mean()
    learner = learner_of(model, amp="fp16")
    begun = learner.scaler.get_scale()
    assert begun > 1
    clips, labels = batches(1)[0]
    learner.accumulate(clips, labels, last=True)
    model.fc.weight.grad[0, 0] = float("inf")  # an overflow
    before = model.fc.weight.detach().clone()
    learner.step()
    assert torch.equal(model.fc.weight, before)
    assert learner.scaler.get_scale() == begun / 2
    other = learner_of(Mean(), amp="fp16")
    other.load_state_dict(learner.state_dict())
    assert other.scaler.get_scale() == begun / 2


def test_padding_weighs_and_counts_nothing():
    """A batch with one real video equals that video in a batch of its own."""
    ((clips, labels),) = batches(1)
    models = [Mean(), Mean()]
    models[1].load_state_dict(models[0].state_dict())
    padded = torch.stack([labels[0], torch.tensor(IGNORED)])
    results = []
    for model, batch in zip(models, ((clips[:1], labels[:1]), (clips, padded)), strict=True):
        results.append(train_one_epoch(learner_of(model), [batch], Progress("epoch", 1000)))
    torch.testing.assert_close(models[0].fc.weight, models[1].fc.weight)
    assert results[0].videos == results[1].videos == 1
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)


def test_frozen_modules_stay_in_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learner = Learner(model, optimizer, normalize, CPU, 2, frozen=[model[0]])
    learner.train_mode()
    assert not model[0].training and model[1].training
