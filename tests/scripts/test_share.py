"""share.py: what it writes, that every --checkpoint reads it back, and the hub by a stand-in."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

import two_stream_bert2
from engine import UsageError
from engine.applying.networks import load_network
from engine.files import CheckpointError, read_file
from engine.testing.score_files import read_scores
from engine.weights.load import read_state_dict
from scripts import cache_tokens, export, share
from tests.scripts.test_export import ARCH, TrainedRun

FILES = ["README.md", "classes.txt", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return TrainedRun(tmp_path_factory.mktemp("share"))


@pytest.fixture(scope="module")
def shared(run):
    folder = run.root / "shared" / "mine"
    flags = ["--run", str(run.folder), "--results", str(run.results)]
    assert share.main([*flags, "--to", str(folder)]) == 0
    return folder


def test_a_folder_holds_what_the_checkpoint_says(run, shared):
    assert sorted(path.name for path in shared.iterdir()) == FILES
    checkpoint = read_file(run.folder / "model_best.pth.tar")
    config = json.loads((shared / "config.json").read_text())
    assert (shared / "classes.txt").read_text() == "left\nmiddle\nright\n"
    for key in ("arch", "input", "mirror", "dataset", "split", "fingerprint", "flags"):
        assert config[key] == checkpoint[key]
    assert config["initial_weights"] == "none" and "optimizer" not in config
    state_dict, content = read_state_dict(shared)
    assert content["class_names"] == ["left", "middle", "right"]
    assert state_dict.keys() == checkpoint["state_dict"].keys()
    for key, value in checkpoint["state_dict"].items():
        assert torch.equal(state_dict[key], value)


def test_the_card_is_filled_from_the_records(run, shared):
    card = (shared / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch\n")
    assert f"# {ARCH} trained on toy" in card
    assert f"data {load_content(run)['fingerprint']['hash']}: toy split 1 rgb" in card
    scores = read_scores(next(run.results.glob("*.npz")))
    top1 = 100 * np.mean(scores.scores.argmax(1) == scores.labels)
    assert f"{top1:.2f} [" in card and "95% bootstrap intervals" in card
    assert "toy rgb_tiny3D16f_bert10_FRMB, single clip, 10 crops" in card
    assert "trained from scratch: no others' weights are in it" in card
    assert "\n```\npython " in card and "frame rate not recorded" in card
    assert "stretched to 64x48" in card and "best epoch is chosen on the list" in card


def load_content(run):
    return read_file(run.folder / "model_best.pth.tar")


def test_scores_of_an_earlier_checkpoint_are_not_on_the_card(run, tmp_path, capsys):
    copy = tmp_path / run.folder.name
    shutil.copytree(run.folder, copy)
    flags = ["--run", str(copy), "--results", str(run.results), "--to", str(tmp_path / "mine")]
    assert share.main(flags) == 0
    assert "none, no test is recorded" in capsys.readouterr().out
    assert "No test of this network is recorded." in (tmp_path / "mine/README.md").read_text()


def test_weights_licences_are_named(run, tmp_path):
    content = load_content(run) | {"initial_weights": "i3d-rgb-kinetics400"}
    path = tmp_path / "net.pth.tar"
    torch.save(content, path)
    share.main(["--checkpoint", str(path), "--to", str(tmp_path / "mine")])
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "from `i3d-rgb-kinetics400` (Kinetics-400), whose licence is: MIT." in card
    torch.save(content | {"initial_weights": "mine.pth"}, path)
    share.main(["--checkpoint", str(path), "--to", str(tmp_path / "mine")])
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "from weights whose licence is not recorded (mine.pth)" in card


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_a_test_reads_it_back(run, shared, name, tmp_path):
    scores = tmp_path / "scores.npz"
    wanted = read_scores(next(run.results.glob("*.npz"))).scores
    run.test(["--checkpoint", shared / name, "--scores", scores, "--results", tmp_path])
    np.testing.assert_array_equal(read_scores(scores).scores, wanted)


def test_caches_and_exports_and_trainings_take_it(run, shared, tmp_path, capsys):
    flags = [*run.data.flags, "--arch", ARCH, "--workers", "0", "--views", "1"]
    cache = ["--cache", str(tmp_path / "tokens"), "--no-ten-crop"]
    assert cache_tokens.main([*flags, *cache, "--checkpoint", str(shared)]) == 0
    output = tmp_path / "net.pt2"
    flags = ["--checkpoint", str(shared), "--output", str(output), "--repeats", "1"]
    assert export.main([*flags, *run.places]) == 0 and output.stat().st_size > 0
    network = load_network(shared)
    assert network.classes == ("left", "middle", "right") and network.preparation.width == 64


@pytest.mark.parametrize("fault", ["truncated", "config", "classes", "malformed", "shape"])
def test_a_damaged_folder_is_refused_readably(shared, fault, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shared, copy)
    weights, config = copy / "model.safetensors", copy / "config.json"
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif fault == "malformed":
        config.write_text("{")
    elif fault == "shape":
        (copy / "classes.txt").write_text("left\nright\n")
    else:
        (config if fault == "config" else copy / "classes.txt").unlink()
    with pytest.raises(CheckpointError) as error:
        load_network(copy)
    assert str(copy) in str(error.value)


def test_a_folder_of_other_files_is_left_alone(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        share.main(["--run", str(run.folder), "--to", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="--private is for"):
        share.main(["--run", str(run.folder), "--to", str(tmp_path / "new"), "--private"])


class HubStandIn:
    """What HfApi is asked for; it keeps what it is given."""

    uploads: list = []
    error: Exception | None = None

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        return huggingface_hub.RepoUrl(f"https://huggingface.co/someone/{repo_id}")

    def upload_folder(self, *, folder_path, repo_id, commit_message):
        if self.error is not None:
            raise self.error
        files = sorted(path.name for path in Path(folder_path).iterdir())
        self.uploads.append((repo_id, files, commit_message))


def test_the_hub_gets_the_same_files(run, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "HfApi", HubStandIn)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    flags = ["--run", str(run.folder), "--results", str(run.results), "--to", "hub:mine"]
    assert share.main([*flags, "--private"]) == 0
    assert HubStandIn.uploads == [("someone/mine", FILES, f"Add {ARCH}")]
    assert "huggingface.co/someone/mine" in capsys.readouterr().out
    monkeypatch.setattr(HubStandIn, "error", OSError("no route to host"))
    with pytest.raises(UsageError, match="cannot upload to hub:mine: no route to host"):
        share.main(flags)


def test_who_is_not_logged_in_is_told_how(run, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="nobody is logged in.*hf auth login"):
        share.main(["--run", str(run.folder), "--to", "hub:mine"])


def test_a_resumed_training_remembers_its_first_weights(tmp_path):
    run = TrainedRun(tmp_path)
    last = run.folder / "last.pth.tar"
    torch.save(read_file(last) | {"initial_weights": "mine.pth"}, last)
    flags = [*run.data.flags, "--arch", ARCH, "--workers", "0", "-b", "3", "--iter-size", "1"]
    more = ["--output", str(tmp_path / "runs"), "--epochs", "3", "-c", "last"]
    assert two_stream_bert2.main([*flags, *more]) == 0
    content = read_file(last)
    assert content["epoch"] == 3 and content["initial_weights"] == "mine.pth"
