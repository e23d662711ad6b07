"""Every flow engine on known motion, TV-L1 against OpenCV's, and flow stored as images."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

from datasets.files import DataError
from datasets.flow import raft as flow_raft
from datasets.flow.engines import FLOW_ENGINES, create_flow, decode_flow, encode_flow
from datasets.flow.median import median_5x5, median_5x5_opencv, select
from datasets.flow.tvl1 import TVL1, TVL1Parameters, pyramid
from datasets.sources.videos import read_frames
from tests.conftest import SHARED, needs_videos

CLASSICAL = [name for name in FLOW_ENGINES if not name.startswith("raft")]


def textured(height=96, width=128) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height // 6, width // 6)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def shifted(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    matrix = np.float32([[1, 0, dx], [0, 1, dy]])
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


def moving(*places: tuple[float, float]) -> np.ndarray:
    """A texture at these places: grey frames (N, 96, 128)."""
    return np.stack([shifted(textured(), *place) for place in places])


@pytest.mark.parametrize("name", CLASSICAL)
def test_engines_find_shifts_in_pixels_and_their_direction(name):
    frames = moving((0, 0), (3, -2), (2, -2.5))
    flow = create_flow(name)(frames)
    assert flow.shape == (2, 2, 96, 128) and flow.dtype == np.float32 and flow.flags.c_contiguous
    centre = np.median(flow[:, :, 24:72, 32:96], axis=(2, 3))
    np.testing.assert_allclose(centre, [[3, -2], [-1, -0.5]], atol=0.3)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_batch_of_pairs_is_its_pairs_one_by_one(name):
    engine, single = create_flow(name), create_flow(name)
    if name == "tvl1-torch":  # as on a GPU: three pairs at once
        engine.pair_flow.chunk_pixels, engine.pair_flow.check_every = 3 * 96 * 128, 10
    # Pairs that converge after very different numbers of iterations.
    frames = moving((0, 0), (0, 0), (4, 3), (4.2, 3), (0, -6))
    together = engine(frames)
    alone = [single.between(frames[i : i + 1], frames[i + 1 : i + 2])[0] for i in range(4)]
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert engine(frames[:1]).shape == (0, 2, 96, 128)


@pytest.mark.parametrize("name", CLASSICAL)
def test_coloured_frames_are_made_grey(name):
    frames = moving((0, 0), (3, -2))
    coloured = np.stack([cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in frames])
    engine = create_flow(name)
    np.testing.assert_array_equal(engine(coloured), engine(frames))


def test_wrong_names_and_frames():
    with pytest.raises(DataError, match="no flow engine 'tvl2'; there are dis, tvl1"):
        create_flow("tvl2")
    engine = create_flow("dis")
    with pytest.raises(ValueError, match=r"uint8 frames of one shape.*\(2, 96, 128\)"):
        engine.between(moving((0, 0)), moving((0, 0), (1, 1)))
    with pytest.raises(ValueError, match="float32"):
        engine(moving((0, 0), (1, 1)).astype(np.float32))


def real_frames(name: str, start: int, size: tuple[int, int], step: int = 1) -> np.ndarray:
    """Two grey frames of a real video, (2, height, width)."""
    pictures = []
    for number, picture in enumerate(read_frames(SHARED / "data" / "clips" / name, size)):
        if number in (start, start + step):
            pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
        if number == start + step:
            break
    return np.stack(pictures)


@needs_videos
@pytest.mark.parametrize(
    ("video", "start", "step", "size"),
    [
        ("arm_wrestling.mp4", 20, 1, (340, 256)),
        ("arm_wrestling.mp4", 60, 2, (170, 128)),
        ("bikes.mp4", 20, 1, (170, 128)),
        ("several_shots.mp4", 60, 4, (170, 128)),
        ("flip_pancake.mkv", 30, 4, (171, 129)),
    ],
)
def test_tvl1_agrees_with_opencv_on_real_frames(video, start, step, size):
    frames = real_frames(video, start, size, step)
    ours, opencv = (create_flow(name)(frames) for name in ("tvl1-torch", "tvl1"))
    assert np.hypot(*opencv[0]).mean() > 0.2  # something moves
    assert np.hypot(*(ours - opencv)[0]).mean() < 0.15
    images = [encode_flow(flow, 20).astype(int) for flow in (ours, opencv)]
    assert np.abs(images[0] - images[1]).mean() < 1


def test_tvl1_pyramids_are_those_of_opencv():
    image = textured(63, 122)
    levels = pyramid(torch.from_numpy(image)[None, None], TVL1Parameters())
    expected = [image]
    for _ in levels[1:]:
        expected.append(cv2.resize(expected[-1], None, fx=0.8, fy=0.8))
    for level, resized in zip(levels, expected, strict=True):
        np.testing.assert_allclose(level[0, 0].numpy(), resized, atol=2e-3)
    assert len(pyramid(torch.zeros(1, 1, 20, 90), TVL1Parameters())) == 2  # 20, 16, not 13


def test_tvl1_iterates_to_its_limits_and_stops_early_where_nothing_moves():
    frames = moving((0, 0), (3, -2))
    few = TVL1(parameters=TVL1Parameters(scales=1, warps=2, outer=2, inner=3, epsilon=0))
    few(frames[:1], frames[1:])
    assert few.pixel_iterations == 2 * 2 * 3 * 96 * 128
    still = TVL1(parameters=TVL1Parameters(scales=1))
    assert np.abs(still(frames[:1], frames[:1])).max() < 1e-2
    assert still.pixel_iterations == 5 * 96 * 128  # one iteration a warp


def test_tvl1_goes_on_without_a_compiler(monkeypatch, caplog):
    frames = moving((0, 0), (3, -2))
    plain = TVL1()(frames[:1], frames[1:])

    def broken(*args):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: broken)
    fallen_back = TVL1(compiled=True)(frames[:1], frames[1:])
    assert "runs unfused" in caplog.text
    np.testing.assert_allclose(fallen_back, plain, atol=1e-4)


@pytest.mark.parametrize(("size", "ranks"), [(5, (0, 2, 4)), (13, (6,)), (25, (12, 13)), (1, (0,))])
def test_selection_networks(size, ranks):
    values = torch.randn(size, 1000, generator=torch.Generator().manual_seed(size))
    chosen = torch.stack(select(list(values), ranks))
    assert torch.equal(chosen, values.sort(0).values[list(ranks)])


def test_medians_are_those_of_opencv():
    images = torch.randn(2, 2, 23, 31, generator=torch.Generator().manual_seed(0))
    images[0] = images[0].round()  # with ties
    assert torch.equal(median_5x5(images), median_5x5_opencv(images))


@pytest.fixture
def raft_weights(tmp_path, monkeypatch):
    """A folder with random weights of the small network."""
    monkeypatch.setattr(flow_raft.RAFT.__init__, "__defaults__", ("cpu", tmp_path))
    torch.manual_seed(0)
    name = flow_raft.RAFT_NETWORKS["small"][1].rpartition("/")[2]
    torch.save(raft_small(weights=None).state_dict(), tmp_path / name)
    return tmp_path


def test_raft_takes_any_size_grey_or_coloured(raft_weights):
    engine = create_flow("raft-small")
    frames = moving((0, 0), (3, -2), (2, 1))[:, :90, :101]
    flow = engine(frames)
    assert flow.shape == (2, 2, 90, 101) and flow.dtype == np.float32
    assert np.isfinite(flow).all() and flow.std() > 0
    coloured = np.stack([cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in frames])
    np.testing.assert_array_equal(engine(coloured), flow)
    alone = engine.between(frames[1:2], frames[2:])
    np.testing.assert_allclose(alone[0], flow[1], atol=1e-3)


def test_raft_without_weights_says_what_to_fetch_and_where_to_put_it(raft_weights, monkeypatch):
    def unreachable(*args, **kwargs):
        raise flow_raft.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    message = rf"fetch https://\S+/raft_large_\S+\.pth and put it at {raft_weights}/raft_large"
    with pytest.raises(DataError, match=message):
        create_flow("raft")
    small = next(raft_weights.glob("raft_small*"))
    small.rename(raft_weights / flow_raft.RAFT_NETWORKS["large"][1].rpartition("/")[2])
    with pytest.raises(DataError, match="does not hold weights of RAFT large"):
        create_flow("raft")
    small.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="cannot read RAFT's weights"):
        create_flow("raft-small")


def test_flow_encoding():
    flow = np.float32([[-30, -20, -10, 0, 10, 20, 30]])
    assert encode_flow(flow, 20).tolist() == [[0, 0, 64, 128, 191, 255, 255]]
    error = decode_flow(encode_flow(flow, 20), 20)[0, 1:-1] - flow[0, 1:-1]
    assert np.abs(error).max() <= 20 / 255 + 1e-5
