"""scripts/weights.py as a user runs it."""

import pickle

import pytest
import torch

from engine import UsageError
from engine.files import CheckpointError
from engine.weights.sources import WEIGHT_SOURCES
from models import ArchError, create_model
from scripts import weights
from tests.conftest import run_script

SCRIPT = "scripts/weights.py"


def checkpoint(path, arch="rgb_tiny3D16f", **changes):
    state_dict = create_model(arch, 4).state_dict() | changes
    torch.save({"arch": arch, "state_dict": state_dict}, path)
    return path


def test_list_names_every_source_and_where_it_is_from(capsys):
    assert weights.main(["list"]) == 0
    printed = capsys.readouterr().out
    for source in WEIGHT_SOURCES:
        assert source.name in printed
        assert source.licence in printed
        assert all(file in printed for file in source.files)


def test_check_says_what_a_file_is_good_for(tmp_path, capsys):
    assert weights.main(["check", str(checkpoint(tmp_path / "a.pth"))]) == 0
    printed = capsys.readouterr().out
    for part in ("checkpoint of rgb_tiny3D16f", "classes     4", "float32", "known       no"):
        assert part in printed
    assert "rgb_tiny3D16f_bert10_FRMB (new: features.5, bert, fc_action)" in printed


def test_unusable_files_end_with_1_and_a_reason(tmp_path):
    nan = checkpoint(tmp_path / "nan.pth", **{"features.1.bias": torch.full((16,), torch.nan)})
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    other = tmp_path / "other.pth"
    torch.save({"encoder.weight": torch.ones(3)}, other)
    evil = tmp_path / "evil.ckpt"
    evil.write_bytes(pickle.dumps(print))
    cases = {
        nan: "features.1.bias holds NaN or infinity",
        text: "no PyTorch file",
        other: "are of no known kind of file",
        evil: "wants to call builtins.print, which is no plain array and is not executed",
        tmp_path / "absent.pth": "there are, newest first",
    }
    for path, reason in cases.items():
        with pytest.raises((ArchError, CheckpointError), match=f"{path.name}.*{reason}"):
            weights.main(["check", str(path)])
    process = run_script(SCRIPT, "check", nan, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {nan}: 1 entries are unusable")


def test_convert_writes_and_does_not_overwrite(tmp_path):
    source, target = checkpoint(tmp_path / "a.pth"), tmp_path / "new" / "b.pth"
    arch = "rgb_tiny3D16f_FRMB_lstm"
    command = ["convert", str(source), "--output", str(target)]
    assert weights.main([*command, "--arch", arch]) == 0
    content = torch.load(target, weights_only=True)
    assert content["arch"] == arch
    assert not any(key.startswith(("lstm", "features.5")) for key in content["state_dict"])
    with pytest.raises(UsageError, match="exists; remove it"):
        weights.main(command)


def test_get_does_not_fetch_what_is_there(tmp_path, capsys):
    (tmp_path / "s3d.pth").write_bytes(b"x")
    assert weights.main(["get", "s3d-kinetics400", "--output", str(tmp_path / "s3d.pth")]) == 0
    assert "is there already" in capsys.readouterr().out
    assert (tmp_path / "s3d.pth").read_bytes() == b"x"
