"""Augmented batches: each video's clips are a function of (seed, epoch, video) alone."""

import pytest
import torch

from datasets.samplers import Padding, TrainingBatches
from engine.config import DataConfig, Recipe, TrainingConfig
from engine.speed import Speed
from engine.training.build import augment_batch, build_data
from engine.training.epoch import train_one_epoch
from engine.training.log import Progress
from engine.training.state import TrainingState
from models import get_arch
from tests.engine.training.test_epoch import Mean, normalize
from video_transforms import ClipAugmentation

VIDEOS = torch.randint(
    256, (7, 2, 3, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
AUGMENT = ClipAugmentation(5, (1, 2, 3), rand_augment=12, random_erasing=0.5)


def augmented(batch_size: int, processes: int = 1, position: int = 0) -> dict[int, torch.Tensor]:
    """Video -> its clips in epoch 3, or in what of it is left."""
    found = {}
    for rank in range(processes):
        batches = TrainingBatches(len(VIDEOS), batch_size, 5, rank, processes)
        batches.set_epoch(3)
        batches.restore(batches.permutation, position)
        for number, videos in enumerate(batches):
            clips = augment_batch(AUGMENT, batches, number, VIDEOS[list(videos)])
            pairs = zip(videos, clips, strict=True)
            found |= {v: c for v, c in pairs if not isinstance(v, Padding)}
    return found


@pytest.mark.parametrize("others", [(3,), (1, 2), (2, 3), (2, 1, 4), (3, 1, 1)])
def test_neither_batches_nor_processes_nor_a_resumed_epoch_change_a_video(others):
    all_of_them, some = augmented(2), augmented(*others)
    assert len(all_of_them) == 7 and len(some) == 7 - (others[2:] or (0,))[0]
    assert all(torch.equal(clips, all_of_them[video]) for video, clips in some.items())
    assert sum(not torch.equal(c, VIDEOS[v]) for v, c in all_of_them.items()) >= 5


def test_a_pass_learns_from_the_augmented_clips():
    batches = TrainingBatches(len(VIDEOS), 3, seed=5)
    loader = [(VIDEOS[videos], torch.tensor(videos) % 4) for videos in batches]
    asked, models = [], [Mean(), Mean()]
    models[1].load_state_dict(models[0].state_dict())

    def augment(number, clips):
        asked.append(number)
        return augment_batch(AUGMENT, batches, number, clips)

    ready = [(augment_batch(AUGMENT, batches, n, c), y) for n, (c, y) in enumerate(loader)]
    for model, data, call in zip(models, (loader, ready), (augment, None), strict=True):
        recipe = Recipe(batch_size=3)
        state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.5), recipe)
        train_one_epoch(state, data, normalize, recipe, Progress("epoch", None), augment=call)
    assert asked == [0, 1, 2]
    assert torch.equal(models[0].fc.weight, models[1].fc.weight)


def test_the_published_recipe_augments_nothing(tiny):
    data = DataConfig(tiny.name, settings=tiny.settings, frames=tiny.frames, workers=0)
    spec, speed = get_arch("rgb_tiny3D16f"), Speed("exact", "off", True, False)

    def built(recipe):
        config = TrainingConfig(data, recipe, spec.name, skip_doctor=True)
        return build_data(config, spec, torch.device("cpu"), speed)

    assert built(Recipe()).augment is None
    changes = built(Recipe(batch_size=4, random_erasing=1.0))
    changes.train.dataset.set_epoch(0)
    clips, _ = next(iter(changes.train))
    erased = changes.augment(0, clips) != clips
    assert erased.flatten(1).any(dim=1).all()
    assert (changes.augment(0, clips)[erased] == 128).all()  # this network's mean
