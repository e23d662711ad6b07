"""Clip transforms: where they cut, what they keep, and what they never do."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from video_transforms import (
    INVERTED,
    NO_FLIP,
    PLAIN,
    CenterCrop,
    ClipAugmentation,
    Compose,
    MultiScaleCornerCrop,
    Normalize,
    RandomHorizontalFlip,
    corner_positions,
    crop_at,
    crop_corners,
    flip_clip,
)


def random_clip(frames=3, height=128, width=170, channels=3) -> np.ndarray:
    shape = (frames, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "height", "width", "centre"),
    [(112, 128, 170, (8, 29)), (224, 256, 340, (16, 58)), (56, 64, 85, (4, 14))],
)
def test_test_crops(size, height, width, centre):
    scale = size / 224
    assert centre == (int(16 * scale), int(58 * scale))  # as the specification has it
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    assert crop_corners(height, width, size) == [centre, *corners]


def test_center_crop_is_a_view():
    clip = random_clip()
    crop = CenterCrop(112)(clip)
    assert np.shares_memory(crop, clip)
    assert np.array_equal(crop, clip[:, 8:120, 29:141])


def test_thirteen_positions_follow_from_the_crop():
    positions = corner_positions(128, 170, 84, 112)
    assert len(set(positions)) == 13
    assert {(0, 0), (0, 58), (44, 0), (44, 58), (22, 29)} <= set(positions)
    assert {(11, 14), (11, 43), (33, 14), (33, 43)} <= set(positions)


def test_crop_sizes_are_at_most_one_ratio_apart_and_never_cut_off():
    crop = MultiScaleCornerCrop(112)
    rng = np.random.default_rng(0)
    boxes = {crop.box(128, 170, rng) for _ in range(3000)}
    sides = [int(128 * ratio) for ratio in (1, 0.875, 0.75, 0.66)]
    pairs = {(sides.index(h), sides.index(w)) for _, _, h, w in boxes}
    assert pairs == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    for top, left, height, width in boxes:
        assert 0 <= top <= 128 - height and 0 <= left <= 170 - width


def test_multi_scale_crop_treats_all_frames_alike_and_keeps_uint8():
    still = np.repeat(random_clip(1, channels=2), 4, axis=0)
    out = MultiScaleCornerCrop(56)(still, np.random.default_rng(3))
    assert out.shape == (4, 56, 56, 2) and out.dtype == np.uint8
    assert (out == out[:1]).all()


def test_full_crop_without_resizing_is_exact():
    clip = random_clip(2, 112, 112)
    crop = MultiScaleCornerCrop(112, ratios=(1.0,))
    assert np.array_equal(crop(clip, np.random.default_rng(0)), clip)


def test_flips():
    clip = random_clip(channels=2)
    plain, inverted = flip_clip(clip, PLAIN), flip_clip(clip, INVERTED)
    assert np.array_equal(plain, clip[:, :, ::-1])
    assert np.array_equal(inverted[..., 0], 255 - clip[:, :, ::-1, 0])
    assert np.array_equal(inverted[..., 1], clip[:, :, ::-1, 1])
    assert inverted.dtype == np.uint8


def test_random_flip_flips_half_and_obeys_none():
    clip = random_clip()
    rng = np.random.default_rng(0)
    flips = [not np.array_equal(RandomHorizontalFlip(PLAIN)(clip, rng), clip) for _ in range(400)]
    assert 150 < sum(flips) < 250
    assert all(RandomHorizontalFlip(NO_FLIP)(clip, rng) is clip for _ in range(20))


def test_compose_runs_in_order():
    clip = random_clip()
    both = Compose(CenterCrop(112), lambda c, rng: flip_clip(c, PLAIN))
    expected = crop_at(clip, 8, 29, 112)[:, :, ::-1]
    assert np.array_equal(both(clip, np.random.default_rng(0)), expected)


@pytest.mark.parametrize(("value_range", "value", "expected"), [(1, 255, 2.0), (255, 128, 127.5)])
def test_normalize(value_range, value, expected):
    clips = torch.full((2, 4, 5, 6, 3), value, dtype=torch.uint8)
    clips[..., 1] = 0
    out = Normalize(value_range, (0.5, 0.5, 0.5), (0.25, 1, 1) if value_range == 1 else (1, 1, 1))(
        clips
    )
    assert out.shape == (2, 3, 4, 5, 6) and out.dtype == torch.float32 and out.is_contiguous()
    assert out[:, 0].unique().tolist() == [expected]
    assert out[:, 1].unique().tolist() == [-0.5]


STILL = 40  # columns, of 56, in which no frame of `clip_with_still_part` differs
AUGMENTATIONS = [{"rand_augment": 9}, {"color_jitter": 0.5}, {"random_erasing": 1.0}]


def clip_with_still_part() -> torch.Tensor:
    """Eight frames, the next one darker than the last, but for their first columns."""
    clip = torch.from_numpy(random_clip(8, 56, 56))[None]  # (1, T, H, W, C)
    clip //= torch.arange(1, 9, dtype=torch.uint8)[:, None, None, None]
    clip[:, :, :, :STILL] = clip[:, :1, :, :STILL]
    return clip


def is_still(clip: torch.Tensor) -> bool:
    """Whether the frames agree in columns that no operation brings the others' pixels to."""
    return torch.equal(clip[:, :, :, :8], clip[:, :1, :, :8].expand_as(clip[:, :, :, :8]))


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_augmentation_is_alike_on_all_frames(options):
    clip, seeds = clip_with_still_part(), range(60)
    results = [ClipAugmentation(seed, (1, 2, 3), **options)(clip, 0, 0) for seed in seeds]
    assert all(map(is_still, results))
    assert all(result.dtype == torch.uint8 and result.shape == clip.shape for result in results)
    assert sum(not torch.equal(result, clip) for result in results) > 50


@pytest.mark.parametrize(
    "transform", [v2.RandAugment(magnitude=9), v2.ColorJitter(0.5, 0.5, 0.5, 0.1)]
)
def test_torchvision_alone_would_take_statistics_of_each_frame(transform):
    frames = clip_with_still_part()[0].permute(0, 3, 1, 2)
    torch.manual_seed(0)
    results = [transform(frames).permute(0, 2, 3, 1)[None] for _ in range(60)]
    assert not all(map(is_still, results))


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_augmentation_is_a_function_of_seed_epoch_and_video(options):
    clip = torch.from_numpy(random_clip(4, 32, 32))[None].repeat(2, 1, 1, 1, 1)
    places = [(seed, epoch, video) for seed in (0, 1) for epoch in (0, 1) for video in range(3)]
    before = torch.get_rng_state()
    first, again = (
        {
            place: ClipAugmentation(place[0], (0, 0, 0), **options)(clip, *place[1:])
            for place in some
        }
        for some in (places, reversed(places))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[place], again[place]) for place in places)
    different = {result.numpy().tobytes() for result in first.values()}
    assert len(different) > 9
    for result in first.values():  # segments of a video are alike, too
        assert torch.equal(result[0], result[1])


@pytest.mark.parametrize("fill", [(1, 2, 3), (127, 128)])
def test_random_erasing_puts_the_mean_in_one_box_of_all_frames(fill):
    clip = torch.full((1, 5, 32, 32, len(fill)), 200, dtype=torch.uint8)
    result = ClipAugmentation(0, fill, random_erasing=1.0)(clip, 0, 0)
    erased = (result != clip).all(dim=-1)[0]
    rows, columns = erased[0].any(1).nonzero(), erased[0].any(0).nonzero()
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    box = result[:, :, top : bottom + 1, left : right + 1]
    assert erased.sum() == 5 * (bottom + 1 - top) * (right + 1 - left) > 0
    assert torch.equal(box, torch.tensor(fill, dtype=torch.uint8).expand_as(box))
