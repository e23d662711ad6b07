"""The three frame-choosing rules, with numbers worked out by hand from their definition."""

import numpy as np
import pytest

from datasets.sampling import central_offsets, clip_frames, multi_clip, random_offsets, single_clip


class Highest:
    """A generator that always draws the largest number."""

    def integers(self, low, high, size=None, endpoint=False):
        assert endpoint
        return high if size is None else np.full(size, high)


class Lowest(Highest):
    def integers(self, low, high, size=None, endpoint=False):
        return low if size is None else np.full(size, low)


@pytest.mark.parametrize(
    ("count", "segments", "lowest", "highest"),
    [
        (150, 1, [0], [85]),  # duration 149: 0..149-64
        (65, 1, [0], [0]),
        (64, 1, [0], [0]),  # duration 63 is below a clip: s * draw with s = 0
        (300, 3, [0, 99, 198], [35, 134, 233]),  # average 99: 0..35 in each segment
        (150, 3, [0, 28, 56], [28, 56, 84]),  # average 49, step (149-64)//3 = 28
        (40, 3, [0, 0, 0], [0, 39, 78]),  # short: s * one draw from 0..39
        (1, 2, [0, 0], [0, 0]),
    ],
)
def test_training_offsets(count, segments, lowest, highest):
    assert random_offsets(count, 64, segments, Lowest()) == lowest
    assert random_offsets(count, 64, segments, Highest()) == highest


def test_training_draws_every_offset_and_no_other():
    rng = np.random.default_rng(0)
    seen = {random_offsets(70, 64, 1, rng)[0] for _ in range(300)}
    assert seen == set(range(6))  # duration 69: 0..5


@pytest.mark.parametrize(
    ("count", "segments", "offsets"),
    [
        (150, 1, [43]),  # int((149 - 64 + 1) / 2)
        (65, 1, [0]),
        (64, 1, [0]),
        (1, 1, [0]),
        (300, 3, [18, 117, 216]),  # int((99 - 64 + 1) / 2 + 99 s)
        (150, 3, [14, 42, 70]),  # step 28: int((28 s + 28 (s + 1)) / 2)
        (40, 3, [0, 13, 26]),  # s * (39 // 3)
    ],
)
def test_validation_offsets(count, segments, offsets):
    assert central_offsets(count, 64, segments) == offsets


@pytest.mark.parametrize(
    ("offset", "count", "frames"),
    [
        (43, 150, list(range(44, 108))),
        (0, 64, list(range(1, 65))),
        (0, 3, [1, 2, 3] * 21 + [1]),
        (78, 40, [*range(39, 41), *range(1, 41), *range(1, 23)]),
        (0, 1, [1] * 64),
    ],
)
def test_frames_wrap_around(offset, count, frames):
    numbers = clip_frames(offset, count, 64)
    assert numbers.tolist() == frames
    plain = [(offset + i) % count or count for i in range(1, 65)]  # modulo, 0 means the last
    assert numbers.tolist() == plain


def test_single_clip_is_the_validation_clip():
    (clip,) = single_clip(150, 64)
    assert clip.tolist() == list(range(44, 108))


@pytest.mark.parametrize(
    ("count", "firsts"),
    [
        (150, [12, 76]),  # duration 149: starts 1, 65; shift int((149 - 129) / 2) = 10
        (280, [13, 77, 141, 205]),  # duration 279: starts 1..193; shift int((279 - 257) / 2) = 11
        (67, [2]),  # duration 66: start 1, shift 0
    ],
)
def test_multi_clip_covers_the_video(count, firsts):
    clips = multi_clip(count, 64)
    assert [clip[0] for clip in clips] == firsts
    for clip in clips:
        assert (np.diff(clip) == 1).all() and len(clip) == 64
    assert clips[-1][-1] <= count


@pytest.mark.parametrize("count", [1, 2, 39, 63, 64, 65, 66])
def test_multi_clip_repeats_a_short_video(count):
    (clip,) = multi_clip(count, 64)
    expected = list(range(1, count + 1)) * (64 // count) + list(range(1, 64 % count + 1))
    assert clip.tolist() == expected
