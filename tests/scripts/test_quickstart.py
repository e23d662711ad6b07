"""From videos to a result in one command: killed, resumed, with broken and with changed videos."""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from datasets import DataError
from engine import UsageError
from engine.ablation import protocol
from engine.quickstart import steps
from engine.quickstart.rates import Rates
from engine.testing.score_files import read_scores
from scripts import quickstart
from scripts.eval import spatial_demo3D
from tests.conftest import run_script

ERRORS = (UsageError, DataError)
ARCH, CLASSES = "rgb_tiny3D16f_bert10", ("left", "middle", "right")
# A server that has imported everything and computed nothing: each run forks from it at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.scripts.test_quickstart"])


def write_video(path: Path, label: int, seed: int, frames: int = 20) -> None:
    """A bright bar at the label's place before a texture of its own."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.integers(0, 200, (6, 8, 3), dtype=np.uint8), (64, 48))
    picture[:, 20 * label + 4 : 20 * label + 16] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number % 3, 0), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_videos(root: Path) -> Path:
    for label, name in enumerate(CLASSES):
        for number in range(6):
            kind = "train" if number < 4 else "test"
            write_video(root / name / f"{kind}{number}.mp4", label, 10 * label + number)
    return root


def argv(videos: Path, output: Path, *more: object) -> list[str]:
    given = ["--train", "train*", "--val", "test*", "--arch", ARCH, "--weights", "none"]
    given += ["--lr", "1e-3", "1e-2", "--epochs", 8, "--views", 2, "--output", output]
    return [str(videos), *map(str, [*given, *more])]


def in_this_process(command, show):
    """A step without a new interpreter, which takes seconds to start."""
    module = importlib.import_module(command[0].removesuffix(".py").replace("/", "."))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = module.main([*command[1:]])
    lines = said.getvalue().splitlines()
    for line in lines:
        show(line)
    return code, lines


@pytest.fixture
def quick(monkeypatch):
    """Steps run in this process; returns the names of the scripts that ran."""
    ran = []

    def run(command, show):
        ran.append(Path(command[0]).stem)
        return in_this_process(command, show)

    monkeypatch.setattr(steps, "run_command", run)
    return ran


RATES = Rates(frame=0.001, clip=0.01, video=0.001)


@pytest.fixture(autouse=True)
def known_rates(monkeypatch):
    """Measuring them takes seconds, and has tests of its own."""
    monkeypatch.setattr(quickstart, "measure_rates", lambda *_: RATES)


def outcome(output: Path) -> tuple:
    """What a quickstart came to: the test's scores, what was chosen, the weights."""
    scores = read_scores(output / f"results/videos_{ARCH}_split1_multi_clip_one_crop.npz")
    own = output / "results/videos_split1_quickstart"
    tuning = json.loads((own / "tuning_rgb/tuning.json").read_text())
    run = output / f"checkpoint/videos_{ARCH}_split1"
    weights = torch.load(run / "last.pth.tar", weights_only=True)["state_dict"]
    return scores.videos, scores.scores.tolist(), tuning, weights


def assert_same(one: tuple, other: tuple) -> None:
    assert one[:3] == other[:3]
    assert one[3].keys() == other[3].keys()
    assert all(torch.equal(one[3][key], other[3][key]) for key in one[3])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run: its videos, what it keeps, what it printed."""
    root, said = tmp_path_factory.mktemp("quickstart"), io.StringIO()
    videos = make_videos(root / "videos")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(steps, "run_command", in_this_process)
        patch.setattr(quickstart, "measure_rates", lambda *_: RATES)
        assert quickstart.main(argv(videos, root / "out")) == 0
    return videos, root / "out", said.getvalue()


@pytest.mark.slow
def test_started_as_a_user_does_it_comes_to_the_same(whole, tmp_path):
    """Each step in a process of its own."""
    run_script("scripts/quickstart.py", *argv(whole[0], tmp_path / "out"))
    assert_same(outcome(whole[1]), outcome(tmp_path / "out"))


def test_from_videos_to_a_result(whole):
    videos, output, printed = whole
    for words in (
        "18 videos of 3 classes, about 360 frames in all: 12 for training, 6 for test",
        "in all",
        "$ python scripts/data/prepare_videos.py",
        "$ python two_stream_bert2",
        "the last epoch was tested, once; the test videos decided nothing",
    ):
        assert words in printed
    own = output / "results/videos_split1_quickstart"
    plan = json.loads((own / "plan.json").read_text())
    names = ["prepare", "doctor", "cache rgb", "tune rgb", "train rgb", "test rgb", "intervals"]
    assert [name for name in plan["steps"] if name != "report"] == names
    assert all(step["finished"] for step in plan["steps"].values())
    checkpoint = output / f"checkpoint/videos_{ARCH}_split1/last.pth.tar"
    assert printed.splitlines()[-1] == (
        f"to apply it: python scripts/predict.py VIDEO --checkpoint {checkpoint}"
    )
    chosen = json.loads((own / "tuning_rgb/tuning.json").read_text())["bert10"]["1"]["chosen"]
    content = torch.load(checkpoint, weights_only=True)
    assert content["epoch"] == chosen["epochs"] == 8
    assert content["optimizer"]["param_groups"][0]["initial_lr"] == chosen["lr"]


def test_the_checkpoint_is_a_whole_network(whole, tmp_path):
    """It gives from frames what the test gave from tokens, which are stored in half precision."""
    _, output, _ = whole
    data = [
        "--frames",
        output / "datasets/videos_frames",
        "--settings",
        output / "datasets/settings",
    ]
    flags = ["--arch", ARCH, "--dataset", "videos", *data, "--no-ten-crop", "--workers", 0]
    flags += ["--checkpoint", output / f"checkpoint/videos_{ARCH}_split1/last.pth.tar"]
    file = tmp_path / "scores.npz"
    flags += ["--results", tmp_path, "--scores", file]
    assert spatial_demo3D.main([*map(str, flags)]) == 0
    assert np.allclose(read_scores(file).scores, outcome(output)[1], atol=2e-2)


def test_finished_steps_are_not_run_again(whole, quick, capsys):
    videos, output, _ = whole
    before = outcome(output)
    assert quickstart.main(argv(videos, output)) == 0
    assert quick == [] and "finished" in capsys.readouterr().out
    assert_same(before, outcome(output))


def run_and_die(given: list[str], place: str, count: int) -> None:
    """A quickstart in this process that dies as by kill -9: before a step, or inside of one, when
    the n-th token file or checkpoint (`file`), or training of the tuning (`line`), is written."""
    written = 0

    def dying(kind: str, real):
        def write(*args):
            nonlocal written
            written += kind == place
            if written == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        return write

    def run(command, show):
        if Path(command[0]).stem == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return in_this_process(command, show)

    os.fsync = dying("file", os.fsync)
    protocol.append_whole = dying("line", protocol.append_whole)
    steps.run_command, quickstart.measure_rates = run, lambda *_: RATES
    multiprocessing.set_start_method("fork", force=True)
    raise SystemExit(quickstart.main(given))


def test_killed_between_and_inside_steps_it_comes_to_the_same(whole, tmp_path, quick):
    videos, output, _ = whole
    given = argv(videos, tmp_path / "out", "--workers", 1)
    places = ["prepare_videos", "doctor", ("file", 3), ("file", 8), "ablate", ("line", 3)]
    places += ["two_stream_bert2", ("file", 1), ("file", 2), "spatial_demo3D"]
    for place in places:
        place = (place, -1) if isinstance(place, str) else place
        process = CONTEXT.Process(target=run_and_die, args=(given, *place))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, place
    assert quickstart.main(given) == 0
    assert quick[0] == "spatial_demo3D"
    assert_same(outcome(output), outcome(tmp_path / "out"))


def test_a_broken_video_is_named_and_left_out_and_a_mended_one_used(whole, tmp_path, quick, capsys):
    videos = Path(shutil.copytree(whole[0], tmp_path / "videos"))
    whole_file = (videos / "left/train0.mp4").read_bytes()
    (videos / "left/train0.mp4").write_bytes(whole_file[:300])
    given = argv(videos, tmp_path / "out")
    assert quickstart.main(given) == 0
    last_lines = capsys.readouterr().out.rpartition("$ python scripts/summarize.py")[2]
    assert "left out: left/train0.mp4: decoding failed after frame 0" in last_lines
    lists = tmp_path / "out/datasets/settings/videos"
    assert len((lists / "train_rgb_split1.txt").read_text().splitlines()) == 11
    # another file under the same name: its frames, and all that follows, are made anew
    (videos / "left/train0.mp4").write_bytes(whole_file)
    write_video(videos / "left/train1.mp4", 0, seed=99, frames=24)
    quick.clear()
    assert quickstart.main(given) == 0
    assert quick[:3] == ["prepare_videos", "doctor", "cache_tokens"] and len(quick) >= 7
    printed = capsys.readouterr().out
    assert "left/train1.mp4 has changed" in printed and "left out" not in printed
    assert "left/train1 24 0" in (lists / "train_rgb_split1.txt").read_text().splitlines()
    # another grid of rates changes the tuning and what follows it alone
    quick.clear()
    assert quickstart.main([*given, "--lr", "1e-3"]) == 0
    assert quick[0] == "ablate"


def test_two_streams_are_fused(whole, tmp_path, quick, capsys):
    given = argv(whole[0], tmp_path / "out", "--flow", "dis", "--epochs", "2")
    assert quickstart.main(given) == 0
    printed = capsys.readouterr().out
    flow = "flow_tiny3D16f_bert10"
    assert [line.split()[0] for line in printed.splitlines()[-7:] if "_" in line.split()[0]][:3]
    fused = f"results/videos_{ARCH}+{flow}_split1_multi_clip_one_crop.npz"
    scores = read_scores(tmp_path / "out" / fused)
    assert len(scores.videos) == 6
    assert f"--checkpoint_flow {tmp_path}/out/checkpoint/videos_{flow}_split1/last.pth" in printed


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "no such folder: "),
        ("empty", "no videos in .*/<class>/; known endings"),
        ("loose", "the 1 videos in the folder itself need a folder for each class"),
        ("single", "holds one class; a folder for each of two"),
        ("patterns", "--train 'train\\*' matches no video"),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(folder, message, tmp_path, capsys):
    root = tmp_path / folder
    if folder != "nowhere":
        root.mkdir()
    if folder == "loose":
        (root / "a.mp4").touch()
    if folder == "single":
        write_video(root / "hug/train.mp4", 0, 0)
        write_video(root / "hug/test.mp4", 0, 1)
    if folder == "patterns":
        write_video(root / "hug/a.mp4", 0, 0)
        write_video(root / "kick/b.mp4", 1, 1)
    with pytest.raises(ERRORS, match=message) as error:
        quickstart.main(argv(root, tmp_path / "out"))
    assert "\n" not in str(error.value) and capsys.readouterr().out == ""
    assert not list(tmp_path.glob("out/**/*_frames"))
