"""What a newcomer stumbles over: each refusal names what is there and the next step."""

import pytest
import torch

import two_stream_bert2
from datasets import DataError
from datasets.preparation import read_preparation
from datasets.prepare.collect import read_csv
from engine import UsageError
from engine.files import CheckpointError
from engine.weights.choose import find_weights
from models import ArchError, get_arch
from models.backbones import BACKBONES
from scripts import cache_tokens
from scripts.data import doctor
from scripts.eval import spatial_demo3D, spatial_demo_bert
from tests.conftest import ROOT, TinyDataset

ARCH = "rgb_tiny3D16f"


@pytest.fixture
def toy(tmp_path) -> TinyDataset:
    """Six short videos of three classes, in both lists."""
    dataset = TinyDataset(tmp_path)
    videos = [(f"v{n}", 17, n % 3) for n in range(6)]
    for folder, count, label in videos:
        dataset.add_video(folder, label, count)
    for part in ("train", "val"):
        dataset.write_lists(part, videos)
    (dataset.lists / "classes.txt").write_text("left\nmiddle\nright\n")
    return dataset


def train(toy, tmp_path, *flags):
    argv = [*toy.flags, "--arch", ARCH, "--output", str(tmp_path / "runs"), "-j", "0"]
    return two_stream_bert2.main([*argv, *map(str, flags)])


def test_a_missing_list_names_the_splits_that_are_there(toy, tmp_path, capsys):
    toy.write_lists("val", [("v1", 17, 1)], split=3)
    there = "there are the splits train flow 1; train rgb 1; val flow 1, 3; val rgb 1, 3"
    with pytest.raises(DataError, match=rf"no list .*_split2.*\({there}\)"):
        train(toy, tmp_path, "--split", 2)
    assert doctor.main([*toy.flags, "--split", "2"]) == doctor.COULD_NOT_CHECK
    assert there in capsys.readouterr().err
    for path in toy.lists.glob("*_split*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="no split has a list there"):
        train(toy, tmp_path, "--skip-doctor")


def test_files_may_begin_with_a_byte_order_mark(toy, tmp_path, capsys):
    """As Windows' editors write them; joined lists have them inside."""
    for path in toy.lists.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        halves = ["".join(lines[:2]), "".join(lines[2:])]
        path.write_bytes(b"".join(half.encode("utf-8-sig") for half in halves))
    assert train(toy, tmp_path, "-b", 2, "--iter-size", 1, "--epochs", 1) == 0
    content = torch.load(next(tmp_path.glob("runs/*/last.pth.tar")), weights_only=True)
    assert content["class_names"] == ["left", "middle", "right"]
    doctor.main(toy.flags, (lines := []).append)
    assert not any(kind in line for line in lines for kind in ("bad-line", "no-folder"))
    preparation = toy.frames / "preparation.json"
    preparation.write_bytes(b"\xef\xbb\xbf" + b'{"width": 64, "height": 48}')
    assert read_preparation(toy.frames).width == 64
    table = tmp_path / "videos.csv"
    table.write_bytes("video,class,part\na.mp4,hug,train\n".encode("utf-8-sig"))
    assert [video.subset for video in read_csv(table)] == ["train"]


def test_a_wrong_architecture_names_the_closest_five():
    with pytest.raises(ArchError) as error:
        get_arch("rgb_I3D64_bert2")
    named = str(error.value).partition("did you mean ")[2].partition("?")[0]
    names = named.replace(" or ", ", ").split(", ")
    assert len(names) == 5 and names[0] == "rgb_I3D64f_bert2"
    assert all(get_arch(name) for name in names) and "scripts/list_archs.py" in str(error.value)
    with pytest.raises(ArchError, match="did you mean"):
        get_arch("")


def test_missing_weights_say_what_lies_in_weights(tmp_path):
    spec = get_arch("rgb_I3D64f")
    with pytest.raises(CheckpointError, match=r"no weights .*my\.pth.*there is nothing \(python"):
        find_weights(spec, str(tmp_path / "my.pth"), tmp_path)
    for name in ("b.pth", "a.pt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match="there is a.pt, b.pth"):
        find_weights(spec, "my.pth", tmp_path)
    with pytest.raises(ArchError, match="no weights are named 'mine'.*there is a.pt, b.pth"):
        find_weights(spec, "mine", tmp_path)


def test_a_checkpoint_without_an_optimizer_suggests_weights(toy, tmp_path):
    train(toy, tmp_path, "-b", 2, "--iter-size", 1, "--epochs", 1)
    path = tmp_path / "runs" / f"toy_{ARCH}_split1" / "last.pth.tar"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"optimizer": {}}, tmp_path / "bare.pth.tar")
    with pytest.raises(CheckpointError, match="no optimizer's state; --weights .*bare.pth.tar "):
        train(toy, tmp_path, "-c", tmp_path / "bare.pth.tar", "--epochs", 2)
    train(toy, tmp_path, "--weights", tmp_path / "bare.pth.tar", "--epochs", 1)


def test_the_published_defaults_on_few_videos_are_warned_of(toy, tmp_path, capsys):
    many = [(f"v{n % 6}", 17, n % 3) for n in range(27)]
    toy.write_lists("train", many)
    train(toy, tmp_path, "--max-steps", 1, "--skip-doctor")
    said = capsys.readouterr().out
    assert "warning: 27 training videos are 1 optimizer step an epoch" in said
    assert "## Few videos" in (ROOT / "docs/TRAINING.md").read_text()


def test_results_say_where_their_epoch_was_chosen_on_the_tested_videos(toy, tmp_path, capsys):
    chosen = "its epoch was chosen on these videos"
    runs = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    test = [*toy.flags, *runs, "--arch", ARCH, "-j", "0", "--no-ten-crop"]
    last = str(tmp_path / "runs" / f"toy_{ARCH}_split1" / "last.pth.tar")

    def said(script, *argv) -> str:
        capsys.readouterr()
        assert script.main([*test, *argv]) == 0
        return capsys.readouterr().out

    train(toy, tmp_path, "-b", 2, "--iter-size", 1, "--epochs", 2)
    assert "% (its epoch was chosen on the same list)" in capsys.readouterr().out
    assert chosen in said(spatial_demo_bert)
    assert chosen not in said(spatial_demo_bert, "--checkpoint", last)
    train(toy, tmp_path, "-e")
    assert chosen in capsys.readouterr().out
    toy.write_lists("val", [("v0", 17, 0)])  # a list that was not held out from choosing
    assert chosen in said(spatial_demo_bert)
    toy.add_video("new", 1, 17)
    toy.write_lists("val", [("new", 17, 1)])
    assert chosen not in said(spatial_demo_bert)
    train(toy, tmp_path, "-b", 2, "--iter-size", 1, "--epochs", 1)
    assert "(its epoch was chosen" not in capsys.readouterr().out
    assert chosen not in said(spatial_demo_bert)


def test_a_cache_of_one_crop_names_the_flag_that_fits_first(toy, tmp_path):
    train(toy, tmp_path, "-b", 2, "--iter-size", 1, "--epochs", 1, "--no-flip")
    runs = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    cached = ["--arch", ARCH, "--cache", str(tmp_path / "cache")]
    best = tmp_path / "runs" / f"toy_{ARCH}_split1" / "model_best.pth.tar"
    argv = [*toy.flags, *cached, "--checkpoint", str(best), "--views", "1", "-j", "0"]
    assert cache_tokens.main([*argv, "--no-ten-crop"]) == 0
    for script in (spatial_demo3D, spatial_demo_bert):
        with pytest.raises(UsageError, match="^give --no-ten-crop, which fits this cache"):
            script.main([*toy.flags, *runs, *cached])
        assert script.main([*toy.flags, *runs, *cached, "--no-ten-crop"]) == 0


def test_the_documents_say_what_each_backbone_sees():
    section = (ROOT / "docs/DATA.md").read_text().partition("## Frame rate and scale\n")[2]
    for backbone in BACKBONES.values():
        (row,) = (line for line in section.splitlines() if line.startswith(f"| `{backbone.name}`"))
        spec = backbone.inputs["rgb"]
        assert "{}x{}, {}x{}".format(*spec.resize, spec.crop, spec.crop) in row
