"""export.py and the example: a trained run leaves the repository and answers as it did inside."""

import json
import os
import shutil
import subprocess
import sys

import av
import cv2
import numpy as np
import onnxruntime
import pytest
import torch

import two_stream_bert2
from datasets import DataError
from datasets.preparation import Preparation
from datasets.sampling import single_clip
from datasets.sources.videos import read_frames
from engine import UsageError
from engine.applying.predictor import load_predictor
from engine.exporting.check import AGREEMENT
from engine.exporting.formats import FORMATS
from engine.files import CheckpointError
from engine.testing.score_files import read_scores
from scripts import export
from scripts.eval import spatial_demo_bert
from tests.conftest import ROOT, SHARED, TinyDataset, needs_videos

ARCH = "rgb_tiny3D16f_bert10_FRMB"


class TrainedRun:
    """A network of one step, tested, and its dataset, whose preparation is recorded."""

    def __init__(self, root):
        self.data, self.root = TinyDataset(root), root
        for part, counts in (("train", (20, 17)), ("val", (36, 17, 9))):
            videos = [(f"{part} {n} {k}", n, k) for k in range(3) for n in counts]
            for folder, count, label in videos:
                self.data.add_video(folder, label, count)
            self.data.write_lists(part, videos)
        (self.data.lists / "classes.txt").write_text("left\nmiddle\nright\n")
        Preparation(width=64, height=48).write(self.data.frames)
        flags = [*self.data.flags, "--arch", ARCH, "--workers", "0"]
        training = ["--output", root / "runs", "--epochs", "2", "-b", "3", "--iter-size", "1"]
        assert two_stream_bert2.main([*map(str, [*flags, *training]), "--lr", "1e-3"]) == 0
        self.folder = root / "runs" / f"toy_{ARCH}_split1"
        self.results = root / "results"
        self.test([])

    def test(self, more) -> list:
        """Runs the single-clip test; the score files."""
        flags = [*self.data.flags, "--arch", ARCH, "--workers", "0"]
        places = ["--runs", self.root / "runs", "--results", self.results]
        assert spatial_demo_bert.main([*map(str, [*flags, *places, *more])]) == 0
        return sorted(self.results.glob("*.npz"))

    @property
    def places(self) -> list[str]:
        """Flags that say where its data are."""
        return ["--frames", str(self.data.frames), "--settings", str(self.data.settings)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return TrainedRun(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def onnx_file(run):
    """The run in ten crops as ONNX, with what was printed about it as JSON."""
    found = run.root / "found.json"
    flags = ["--run", str(run.folder), "--format", "onnx", "pt2", "--ten-crop", "--repeats", "1"]
    assert export.main([*flags, *run.places, "--json", str(found)]) == 0
    return run.folder / f"{run.folder.name}.onnx", json.loads(found.read_text())


def test_an_exported_run_has_the_test_scripts_scores(run, onnx_file):
    path, found = onnx_file
    assert found["checked_on"] == "3 test videos of toy" and found["crops"] == 10
    assert [file["format"] for file in found["files"]] == ["onnx", "pt2"]
    assert all(file["differs"] <= AGREEMENT for file in found["files"])
    assert [row["format"] for row in found["latency"]] == ["PyTorch", "onnx", "pt2"]
    metadata = FORMATS["onnx"].read_metadata(path)
    assert metadata["classes"] == ["left", "middle", "right"] and metadata["arch"] == ARCH
    assert FORMATS["pt2"].read_metadata(path.with_suffix(".pt2")) == metadata
    # the frames as they lie on the disk, resized in the graph
    scores = read_scores(next(run.results.glob("*.npz")))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["input"])["frames"] == 16
    for video, wanted in zip(scores.videos, scores.scores, strict=True):
        names = sorted((run.data.frames / video).glob("img_*.jpg"))
        frames = np.stack([cv2.imread(str(name))[..., ::-1] for name in names])
        clip = frames[single_clip(len(frames), 16)[0] - 1][None]
        (answer,) = session.run(None, {"frames": np.ascontiguousarray(clip)})[0]
        softmax = torch.from_numpy(wanted).softmax(0)
        np.testing.assert_allclose(answer, softmax, atol=AGREEMENT)


def make_video(path, frames=30, size=(96, 72)):
    """A lossless video of a bright square that moves over noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "bgr0"
        for number in range(frames):
            image = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
            image[20:50, number : number + 20] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def run_example(network, video, folder):
    """What the example prints, run in a folder of its own, where nothing of ours can be found."""
    script = shutil.copy(ROOT / "examples" / "run_onnx.py", folder)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, script, str(network), str(video), "3"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def check_example(run, network, video, tmp_path):
    process = run_example(network, video, tmp_path)
    assert process.returncode == 0, process.stderr
    printed = {name: float(p) for p, name in map(str.split, process.stdout.splitlines())}
    pictures = [frame[..., ::-1] for frame in read_frames(video, original_size(video))]
    wanted = load_predictor(run.folder, clips="single", ten_crop=True).predict(pictures)
    classes = ["left", "middle", "right"]
    assert list(printed) == [classes[label] for label in np.argsort(-wanted)]
    for name, probability in printed.items():
        assert abs(probability - wanted[classes.index(name)]) < 1e-3  # resized to 0.5 % apart


def original_size(video):
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


def test_the_example_runs_anywhere_and_answers_as_the_predictor(run, onnx_file, tmp_path):
    video = make_video(tmp_path / "video.mkv")
    check_example(run, onnx_file[0], video, tmp_path)
    text = (ROOT / "examples" / "run_onnx.py").read_text()
    imports = [line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == ["json", "sys", "av", "numpy", "onnxruntime"]


@needs_videos
def test_the_example_on_a_real_video(run, onnx_file, tmp_path):
    check_example(run, onnx_file[0], SHARED / "data" / "clips" / "bikes.mp4", tmp_path)


def test_without_the_data_made_clips_are_taken_and_that_is_said(run, tmp_path, capsys):
    nowhere = ["--frames", str(tmp_path / "none"), "--settings", str(run.data.settings)]
    output = tmp_path / "net.pt2"
    flags = ["--run", str(run.folder), "--output", str(output), "--repeats", "1"]
    assert export.main([*flags, *nowhere]) == 0
    printed = capsys.readouterr().out
    assert "checked on 3 made clips (the test videos of toy cannot be read: no frames" in printed
    assert [*tmp_path.iterdir()] == [output] and "times as fast" in printed


@pytest.mark.parametrize("kind", ["other", "truncated", "text", "missing"])
def test_a_file_that_is_no_trained_network(run, kind, tmp_path):
    path = tmp_path / "net.pth.tar"
    whole = (run.folder / "model_best.pth.tar").read_bytes()
    if kind == "other":
        torch.save({"weight": torch.ones(3)}, path)
    elif kind != "missing":
        path.write_bytes(whole[: len(whole) // 2] if kind == "truncated" else b"text")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"net\.pth\.tar"):
        export.main(["--checkpoint", str(path), "--output", str(tmp_path / "net.pt2")])
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_outputs_that_cannot_be(run, tmp_path):
    missing = tmp_path / "missing" / "net.pt2"
    with pytest.raises(UsageError, match="no folder"):
        export.main(["--run", str(run.folder), "--output", str(missing)])
    with pytest.raises(UsageError, match="one --format"):
        flags = ["--format", "pt2", "onnx", "--output", str(tmp_path / "net")]
        export.main(["--run", str(run.folder), *flags])


@needs_videos
def test_real_videos_to_check_on(run, tmp_path, capsys):
    video, output = SHARED / "data" / "clips" / "bikes.mp4", tmp_path / "net.pt2"
    flags = ["--run", str(run.folder), "--output", str(output), "--repeats", "1"]
    assert export.main([*flags, "--video", str(video)]) == 0 and output.is_file()
    assert "checked on 1 video(s)" in capsys.readouterr().out
    output.unlink()
    with pytest.raises(DataError, match="none.mp4"):
        export.main([*flags, "--video", str(tmp_path / "none.mp4")])
    assert not [*tmp_path.iterdir()]
