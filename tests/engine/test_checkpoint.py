"""Checkpoints: what they hold, and every way in which one is refused."""

import errno

import numpy as np
import pytest
import torch

from engine import files
from engine.checkpoint import load_checkpoint, make_checkpoint, state_dict_differences
from engine.files import CheckpointError, read_file, save_atomically, strip_wrappers
from models import create_model, get_arch
from opt import Schedule, adamw
from tests.conftest import STATE_DICTS, filled_state_dict

ARCH = "rgb_tiny3D16f_bert10_FRMB"
CLASSES = ["hug", "kick", "push"]


@pytest.fixture
def model():
    return create_model(ARCH, 3)


def content_of(model, **changes) -> dict:
    optimizer = adamw(model.parameters(), 1e-3, 0.9, 1e-3)
    schedule = Schedule(optimizer, "plateau", 10)
    about = {"dataset": "toy", "split": 1, "class_names": CLASSES, "flow_bound": None}
    about["mirror"] = "plain"
    content = make_checkpoint(
        model.spec, model, optimizer, schedule.state_dict(), 4, 61.5, 0.7, about
    )
    return content | changes


def saved(tmp_path, content):
    path = tmp_path / "model.pth.tar"
    torch.save(content, path)
    return path


def load(path, model, class_names=CLASSES):
    return load_checkpoint(path, get_arch(ARCH), model, class_names)


def test_round_trip(tmp_path, model):
    path = tmp_path / "model.pth.tar"
    save_atomically(content_of(model), path)
    other = create_model(ARCH, 3)
    content = load(path, other)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    reference_keys = {"epoch", "arch", "state_dict", "best_prec1", "best_loss", "optimizer"}
    assert reference_keys < content.keys()
    assert content["class_names"] == CLASSES
    assert content["input"] == {
        "crop": 56,
        "resize": [85, 64],
        "value_range": 1,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "frames": 16,
        "modality": "rgb",
    }
    assert content["versions"]["torch"] == torch.__version__
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth.tar"]


def test_a_full_disk_is_said_with_the_path(tmp_path, model, monkeypatch):
    path = tmp_path / "model.pth.tar"
    save_atomically({"epoch": 1}, path)
    before = path.read_bytes()
    begin = files._Watched.__init__
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(files._Watched, "__init__", lambda self, file: begin(self, full))
        with pytest.raises(OSError, match="disk full: .*model.pth.tar'") as error:
            save_atomically(content_of(model), path)
    assert error.value.errno == errno.ENOSPC and path.read_bytes() == before


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", ""])
def test_wrappers_are_stripped(tmp_path, model, prefix):
    content = content_of(model)
    content["state_dict"] = {prefix + k: v for k, v in content["state_dict"].items()}
    load(saved(tmp_path, content), create_model(ARCH, 3))
    assert strip_wrappers({"module.module.a": torch.ones(1)}).keys() == {"a"}


def test_reference_files_load_with_their_optimizer(tmp_path):
    """As the reference writes them: several GPUs' prefix, NumPy numbers, nothing of the input."""
    arch = "rgb_r2plus1d_32f_34"
    filled = filled_state_dict(arch)
    reference = create_model(arch, 51)
    optimizer = adamw(reference.parameters(), 1e-5, 0.9, 1e-3)
    reference.load_state_dict(filled)
    for parameter in reference.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    content = {
        "epoch": 7,
        "arch": arch,
        "state_dict": {f"module.{key}": value for key, value in filled.items()},
        "best_prec1": np.float64(70.5),
        "best_loss": torch.tensor(1.5),
        "optimizer": optimizer.state_dict(),
    }
    model = create_model(arch, 51)
    loaded = load_checkpoint(
        saved(tmp_path, content), get_arch(arch), model, [f"class {i}" for i in range(51)]
    )
    assert float(loaded["best_prec1"]) == 70.5 and float(loaded["best_loss"]) == 1.5
    fresh = adamw(model.parameters(), 1e-5, 0.9, 1e-3)
    fresh.load_state_dict(loaded["optimizer"])
    names = [name for name, _ in model.named_parameters()]
    assert names[0] == next(iter(STATE_DICTS[arch]["entries"]))
    for parameter in model.parameters():
        assert fresh.state[parameter]["exp_avg"].shape == parameter.shape


def test_another_architecture_is_refused(tmp_path, model):
    path = saved(tmp_path, content_of(model, arch="rgb_tiny3D16f"))
    with pytest.raises(CheckpointError, match="rgb_tiny3D16f in the file, rgb_tiny3D16f_bert10"):
        load(path, model)


def test_another_number_of_classes_is_refused(tmp_path, model):
    path = saved(tmp_path, content_of(model))
    with pytest.raises(CheckpointError, match="classes: 3 in the file, 4 in the dataset"):
        load(path, create_model(ARCH, 4), [*CLASSES, "run"])


def test_another_order_of_classes_is_refused(tmp_path, model):
    path = saved(tmp_path, content_of(model))
    with pytest.raises(CheckpointError, match="class 0: 'hug' in the file, 'kick' in the dataset"):
        load(path, model, ["kick", "hug", "push"])


def test_unnamed_classes_are_not_compared(tmp_path, model):
    load(saved(tmp_path, content_of(model)), model, ["class 0", "class 1", "class 2"])


def test_another_input_is_refused(tmp_path, model):
    content = content_of(model)
    content["input"] = content["input"] | {"mean": [0.4] * 3}
    with pytest.raises(CheckpointError, match=r"input mean: \[0.4, 0.4, 0.4\] in the file"):
        load(saved(tmp_path, content), model)


def test_a_newer_format_is_refused(tmp_path, model):
    path = saved(tmp_path, content_of(model, format_version=99))
    with pytest.raises(CheckpointError, match="version 99"):
        load(path, model)


def test_missing_unknown_and_misshapen_entries_are_listed(tmp_path, model):
    content = content_of(model)
    state_dict = dict(content["state_dict"])
    del state_dict["bert.clsToken"]
    state_dict["extra"] = torch.ones(2)
    state_dict["features.0.weight"] = torch.ones(1, 2)
    content["state_dict"] = state_dict
    with pytest.raises(CheckpointError) as caught:
        load(saved(tmp_path, content), model)
    for part in (
        "missing: bert.clsToken",
        "unknown: extra",
        "features.0.weight (1, 2) in the file",
    ):
        assert part in str(caught.value)
    assert len(state_dict_differences({}, model)) == 6  # five and "and N more"


def test_truncated_foreign_and_absent_files_are_refused(tmp_path, model):
    path = saved(tmp_path, content_of(model))
    data = path.read_bytes()
    for cut in (0, 100, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
            load(path, model)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        load(path, model)
    with pytest.raises(CheckpointError, match="holds a list"):
        load(saved(tmp_path, [1, 2]), model)
    with pytest.raises(CheckpointError, match="--weights"):
        load(saved(tmp_path, dict(model.state_dict())), model)
    with pytest.raises(CheckpointError, match="there are, newest first: model.pth.tar"):
        load(tmp_path / "other.pth.tar", model)


def test_old_formats_load(tmp_path, model):
    """Files from before PyTorch 1.6, and NumPy numbers under NumPy 1's names."""
    content = content_of(model, best_prec1=np.float64(12.5), best_loss=np.float32(1.5))
    path = tmp_path / "old.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert float(load(path, create_model(ARCH, 3))["best_prec1"]) == 12.5
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert float(load(path, create_model(ARCH, 3))["best_loss"]) == 1.5


class Attack:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    path = saved(tmp_path, {"state_dict": Attack()})
    with pytest.raises(CheckpointError, match="it wants to call builtins.print; .* never executed"):
        read_file(path)
    assert "executed" not in capsys.readouterr().out
