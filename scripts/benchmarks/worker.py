"""The process of one variant: times passes of a network whenever it is asked to.

    python scripts/benchmarks/worker.py TREE JSON

Runs the code in TREE, perhaps that of an earlier commit, so it imports of ours only what all
commits have. It answers each line on stdin, `start`, `turn` or `profile FILE`, by a line of JSON;
what the code prints goes to stderr. The JSON is a dict of:
    arch, classes, batch_size, device
    crop: the side of the clips, pixels
    train: whether to time training steps instead of forward passes
    speed: a preset of engine/speed.py; "none" for plain calls of the model
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from memory import NOW, PEAK, forget_peak, resident  # beside this file

# No longer this folder, whose test.py hides a module of Python's.
sys.path[0] = sys.argv[1]

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import create_model
from opt import sgd

TURN_SECONDS = 0.5  # at least one pass, as many as fit into this


def backbone_of(spec: Any) -> Any:
    """An architecture's row of backbones; early commits keep them in another way."""
    return importlib.import_module("models.backbones").BACKBONES[spec.backbone]


class Passes:
    """A network with random weights and a batch of random clips (N, C, T, H, W)."""

    def __init__(
        self,
        arch: str,
        classes: int,
        batch_size: int,
        crop: int,
        device: str,
        train: bool,
        speed: str,
    ):
        # network
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        self.device, self.batch_size, self.passes = torch.device(device), batch_size, 1
        self.presets = self.speed = None
        model = create_model(arch, classes).to(self.device).train(train)
        spec = model.spec
        if crop != spec.input.crop:  # the layers take clips of any side, the network refuses them
            backbone_of(spec).inputs[spec.modality] = replace(spec.input, crop=crop)
        if speed != "none":
            self.presets = importlib.import_module("engine.speed")  # early commits have none
            config = importlib.import_module("engine.config").SpeedConfig(speed)
            factorised = train and backbone_of(spec).factorised
            self.speed = self.presets.choose_speed(config, self.device, factorised)
            model = self.presets.fit(model, self.speed)
        # clips, laid out as the transforms give them
        channels, *size = spec.clip_shape
        if self.speed and self.speed.channels_last:
            clips = torch.randn(batch_size, *size, channels).permute(0, 4, 1, 2, 3)
        else:
            clips = torch.randn(batch_size, channels, *size)
        clips = clips.to(self.device)
        labels = torch.arange(batch_size, device=self.device) % classes
        # memory before the first pass, and the pass
        forget_peak()
        self.before = self._memory(NOW)
        self.step = self._training(model, clips, labels) if train else self._inference(model, clips)

    def _inference(self, model: nn.Module, clips: Tensor) -> Callable[[], object]:
        network = model
        if self.speed:
            encode = self.presets.InferenceEncoder(model, self.speed)

            def network(x: Tensor) -> Tensor:
                return model.classify(encode(x))

        return torch.inference_mode()(lambda: network(clips))

    def _training(self, model: nn.Module, clips: Tensor, labels: Tensor) -> Callable[[], object]:
        optimizer = sgd(model.parameters(), 1e-5, 0.9, 1e-3)
        network = model
        if self.speed:
            self.presets.compile_training(model, self.speed, self.batch_size)

            def network(x: Tensor) -> Tensor:
                with self.presets.autocast(self.device, self.speed.amp):
                    return model(x)

        def step() -> None:
            F.cross_entropy(network(clips).float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def _memory(self, key: str) -> float:
        """Bytes: of a GPU what its tensors take, else the resident set."""
        if self.device.type != "cuda":
            return resident(key)
        if key == NOW:
            torch.cuda.reset_peak_memory_stats(self.device)
            return float(torch.cuda.memory_allocated(self.device))
        return float(torch.cuda.max_memory_allocated(self.device))

    def turn(self) -> dict[str, float]:
        """Seconds a clip of a turn's passes; bytes so far at the peak, and before the first."""
        start = time.perf_counter()
        for _ in range(self.passes):
            self.step()
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()
        seconds = (time.perf_counter() - start) / self.passes
        self.passes = max(1, int(TURN_SECONDS / seconds))
        memory = {"peak": self._memory(PEAK), "before": self.before}
        return {"seconds": seconds / self.batch_size} | memory


def answer(passes: Passes | None, words: list[str], settings: dict) -> tuple[Passes, dict]:
    """The passes, made by `start`, and what to answer."""
    if words[0] == "start":
        start = time.perf_counter()
        passes = Passes(**settings)
        passes.turn()
        names = ("preset", "amp", "channels_last", "compile")
        speed = {name: getattr(passes.speed, name, None) for name in names}
        seconds = time.perf_counter() - start
        return passes, {"start": seconds, "threads": torch.get_num_threads(), "speed": speed}
    if words[0] == "turn":
        return passes, passes.turn()
    from scripts.benchmarks.profiler import profile_step

    return passes, profile_step(passes.step, passes.device, Path(words[1]))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code prints is no answer
    passes = None
    for line in sys.stdin:
        try:
            passes, content = answer(
                passes, line.rstrip("\n").split(" ", 1), json.loads(sys.argv[2])
            )
        except Exception as error:
            content = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(content), file=answers, flush=True)


if __name__ == "__main__":
    main()
