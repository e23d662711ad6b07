"""Files that are hostile or nonsense: refused in words, never executed, never a traceback."""

import contextlib
import copy
import time
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.checkpoint import EXPECTED, load_checkpoint, metadata_faults
from engine.config import DataConfig, Recipe, TrainingConfig
from engine.files import CheckpointError, read_file
from engine.speed import choose_speed
from engine.training.build import build_data, build_model, build_state
from engine.training.state import restore_random_states
from models import create_model, get_arch
from opt import adamw
from tests.engine.test_checkpoint import ARCH, content_of, load, saved
from tests.mutations import mutated
from video_transforms import PLAIN


@pytest.fixture
def model():
    return create_model(ARCH, 3)


def test_a_zip_bomb_is_not_unpacked(tmp_path, model):
    path = saved(tmp_path, content_of(model))
    bomb = tmp_path / "bomb.pth.tar"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in whole.infolist():
            data = bytes(200_000_000) if entry.filename.endswith("data/0") else whole.read(entry)
            out.writestr(entry.filename, data)
    assert bomb.stat().st_size < 5_000_000
    with pytest.raises(CheckpointError, match="would unpack to 2.*not read"):
        read_file(bomb)


def changed_entry(model, key: str, value: torch.Tensor) -> dict:
    content = content_of(model)
    content["state_dict"] = copy.deepcopy(dict(content["state_dict"])) | {key: value}
    return content


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, model, bad):
    value = model.fc_action.weight.detach().clone()
    value[0, 0] = bad
    path = saved(tmp_path, changed_entry(model, "fc_action.weight", value))
    with pytest.raises(CheckpointError, match="not finite: fc_action.weight"):
        load(path, model)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_number_are_refused(tmp_path, model, dtype):
    value = model.fc_action.weight.detach().to(dtype)
    path = saved(tmp_path, changed_entry(model, "fc_action.weight", value))
    with pytest.raises(CheckpointError, match=rf"type: fc_action.weight {dtype} in the file"):
        load(path, model)


def test_other_precisions_are_converted(tmp_path, model):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        value = model.fc_action.weight.detach().to(dtype)
        other = create_model(ARCH, 3)
        load(saved(tmp_path, changed_entry(model, "fc_action.weight", value)), other)
        assert torch.equal(other.fc_action.weight, value.float())


def test_sparse_and_stretched_tensors_are_refused(tmp_path, model):
    sparse = model.fc_action.weight.detach().to_sparse()
    with pytest.raises(CheckpointError):
        load(saved(tmp_path, changed_entry(model, "fc_action.weight", sparse)), model)
    stretched = torch.zeros(1).expand(10**9, 10**6)  # one number in the file
    with pytest.raises(CheckpointError, match="stretched over a large shape"):
        load(saved(tmp_path, changed_entry(model, "fc_action.weight", stretched)), model)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(torch.ones(2))
    | st.just(torch.arange(3)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
fuzzed = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def continuing(tiny, tmp_path_factory):
    """A training that could be continued, and a good checkpoint of it."""
    where = DataConfig(tiny.name, settings=tiny.settings, frames=tiny.frames, workers=0)
    recipe = Recipe(batch_size=4, lr=1e-3, epochs=10)
    config = TrainingConfig(where, recipe, ARCH, output=tmp_path_factory.mktemp("runs"))
    device = torch.device("cpu")
    speed = choose_speed(config.computing, device)
    data = build_data(config, get_arch(ARCH), device, speed)
    model = build_model(config, data, device, speed)
    state = build_state(config, model, adamw, speed, epoch_batches=1)
    content = content_of(model, **data.metadata)
    content |= {"learner": state.learner_dict(), "optimizer": state.optimizer.state_dict()}
    content |= {"scheduler": state.schedule.state_dict(), "flags": {}, "seed": 0, "progress": None}
    return data, recipe, state, content


def continue_from(path, continuing) -> None:
    """What `-c FILE` does with a file before the first step."""
    data, recipe, state, _ = continuing
    content = load_checkpoint(path, data.spec, state.model, data.split.class_names)
    state.restore(path, content, recipe)
    for states in content.get("random_states", [])[:1]:
        restore_random_states(states)


def test_the_undamaged_checkpoint_is_read(tmp_path, continuing):
    path = tmp_path / "good.pth.tar"
    torch.save(continuing[-1], path)
    continue_from(path, continuing)


@fuzzed
@given(
    damage=st.dictionaries(
        st.sampled_from([*EXPECTED, "state_dict"]), plain, min_size=1, max_size=3
    )
)
def test_any_metadata_is_read_or_refused_in_words(tmp_path, continuing, damage):
    path = tmp_path / "fuzzed.pth.tar"
    torch.save(continuing[-1] | damage, path)
    try:
        continue_from(path, continuing)
    except CheckpointError as error:
        assert str(path) in str(error) or "random states" in str(error)


@fuzzed
@given(data=st.data())
def test_any_damage_inside_the_states_is_read_or_refused_in_words(tmp_path, continuing, data):
    """One value somewhere in optimizer, schedule or learner is replaced by anything."""
    content = copy.deepcopy(continuing[-1])
    node = data.draw(st.sampled_from([content[k] for k in ("optimizer", "scheduler", "learner")]))
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            node = inner
            continue
        node[key] = data.draw(plain)
        break
    path = tmp_path / "fuzzed.pth.tar"
    torch.save(content, path)
    try:
        continue_from(path, continuing)
    except CheckpointError as error:
        assert str(path) in str(error)


@fuzzed
@given(noise=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_words(tmp_path, noise):
    path = tmp_path / "noise.pth.tar"
    path.write_bytes(noise)
    with pytest.raises(CheckpointError, match="noise.pth.tar"):
        read_file(path)


def test_the_table_of_metadata_names_every_field(model):
    content = content_of(model)
    assert metadata_faults(content) == []
    for key in EXPECTED:
        for value in (object(), torch.ones(2), ["x"], {1: 2}):
            allowed = key == "class_names" and value == ["x"]
            assert bool(metadata_faults({key: value})) != allowed, (key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("best_prec1", v) for v in (float("nan"), 1e300, -5.0, "50", True, torch.tensor(101.0))],
        *[("best_loss", v) for v in (float("nan"), -1.0, None)],
        *[("epoch", v) for v in ("3", -1, 2.5, 10**400, True, float("nan"))],
        *[("seed", v) for v in (-1, 10**400, 0.5)],
        ("flags", {"lr": [1]}),
        ("class_names", ["x" * 2000]),
    ],
)
def test_numbers_and_names_of_impossible_values_are_refused(tmp_path, model, key, value):
    path = saved(tmp_path, content_of(model, **{key: value}))
    with pytest.raises(CheckpointError, match=f"does not fit:\n  {key}: .* in the file, where"):
        load(path, model)


METADATA = {
    **{"epoch": 3, "arch": ARCH, "best_prec1": 50.0, "best_loss": 0.5, "seed": 0, "split": 1},
    **{"class_names": ["a", "b"], "flags": {"lr": 0.1, "amp": "off"}, "mirror": PLAIN},
    **{"flow_bound": None, "input": {"mean": [0.5] * 3}, "random_states": [None]},
    "fingerprint": {"classes": ["a"], "lists": {"train": {"videos": [1, 2], "counts": [3, 4]}}},
    "progress": {"result": {"videos": 1}, "permutation": torch.arange(2)},
}


@pytest.fixture(scope="module")
def metadata_file(tmp_path_factory):
    """A checkpoint's metadata in PyTorch's older format, whose bytes no checksum protects."""
    path = tmp_path_factory.mktemp("metadata") / "metadata.pth.tar"
    torch.save(METADATA, path, _use_new_zipfile_serialization=False)
    assert metadata_faults(read_file(path)) == []
    return path


@settings(fuzzed, max_examples=300, derandomize=True)
@given(data=st.data())
def test_metadata_with_damaged_bytes_are_read_or_refused(metadata_file, data):
    path = metadata_file.with_name("damaged.pth.tar")
    path.write_bytes(data.draw(mutated(metadata_file.read_bytes())))
    with contextlib.suppress(CheckpointError):
        content = read_file(path)
        if not metadata_faults(content):
            assert -1 <= float(content.get("best_prec1", 0)) <= 100.001
            assert 0 <= content.get("epoch", 0) <= 2**31


def folded(times: int) -> list:
    """A list of 2**times values that is stored as `times` lists."""
    values = [0]
    for _ in range(times):
        values = [values, values]
    return values


@pytest.mark.parametrize("key", [*EXPECTED, "state_dict", "unknown"])
@pytest.mark.parametrize("times", [18, 40, 300])
def test_values_that_refer_to_each_other_are_counted_not_unfolded(tmp_path, model, key, times):
    """Within the limits of depth it is too many values, beyond them too deep."""
    bomb = [folded(times)] * 100
    path = saved(tmp_path, content_of(model) | {key: {"a": bomb}})
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="unfolds to|deep"):
        load(path, model)
    assert time.monotonic() - start < 1


def test_a_list_within_itself_is_refused(tmp_path, model):
    circle = []
    circle.append(circle)
    with pytest.raises(CheckpointError, match="contains itself|deep"):
        load(saved(tmp_path, content_of(model, flags={"a": circle})), model)
