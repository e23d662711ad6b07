"""What is measured: accuracies of scores (videos, classes), a pass's sums, FLOPs and MFU."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each video's label is among its k highest scores, bool (videos,).

    A label whose score is equalled by others is ranked after them: a constant answer is wrong,
    and so is a video that could not be scored, or with a score that is not finite.
    """
    k = min(k, scores.shape[1])
    own = scores[np.arange(len(labels)), labels][:, None]
    rank = (scores >= own).sum(axis=1)  # 1 is the best
    return (rank <= k) & np.isfinite(scores).all(axis=1)


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of videos whose label is among the k highest scores, in percent; see topk_hits."""
    return 100 * float(np.mean(topk_hits(scores, labels, k)))


def predicted_classes(scores: np.ndarray) -> np.ndarray:
    """The class of each video's highest score, int64 (videos,); -1 if a score is not finite."""
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scored videos by label (row) and predicted class (column), int64 (classes, classes)."""
    predicted, classes = predicted_classes(scores), scores.shape[1]
    scored = predicted >= 0
    pairs = labels[scored] * classes + predicted[scored]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their videos that are correct, percent."""
    from sklearn.metrics import recall_score  # slow to import

    predicted = np.where(topk_hits(scores, labels, 1), labels, -1)  # -1: any wrong class
    return 100 * float(recall_score(labels, predicted, labels=np.unique(labels), average="macro"))


def fuse(streams: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """Late fusion: each video's scores divided by their L2 norm, times the stream's weight, added.

    Args:
        streams: scores (videos, classes) each, of the same videos in the same order.
        weights: a number for each stream; 1 for all if left out.

    A video that one stream could not score (NaN, or nothing but zeros), or whose scores have no
    finite norm, is NaN.
    """
    weights = [1.0] * len(streams) if weights is None else weights
    fused = 0
    with np.errstate(invalid="ignore", over="ignore"):
        for scores, weight in zip(streams, weights, strict=True):
            norm = np.linalg.norm(scores, axis=1, keepdims=True)
            fused = fused + float(weight) * (scores / np.where(np.isfinite(norm), norm, np.nan))
    return fused


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (N, classes) -> probabilities, float64; a row that is not finite throughout is NaN."""
    scores = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, np.nan)
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def unit_scale(streams: Sequence[np.ndarray]) -> np.ndarray:
    """What fused scores are multiplied by before the softmax, (N, 1).

    Fusion adds score vectors of unit length, whose softmax would be nearly uniform. They are scaled
    back to the mean length of the streams' own vectors, and divided by the number of streams: two
    equal streams then have the probabilities of one.
    """
    lengths = [np.linalg.norm(own.astype(np.float64), axis=1, keepdims=True) for own in streams]
    return np.mean(lengths, axis=0) / len(streams)


# What a file may say of a number of things, and of a sum.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e300)]


@dataclass
class EpochStats:
    """Sums over the videos of one pass; the properties are what is reported.

    Attributes:
        videos, steps: videos seen and optimizer steps taken.
        clips: clips that went through the network.
        loss_sum: cross-entropy over the videos, nats.
        top1_hits, top3_hits: videos whose label is the first, or among the first three; logits
            that are not finite are wrong.
        loading, computing: seconds spent waiting for data, and on the rest.
    """

    videos: Count = 0
    clips: Count = 0
    steps: Count = 0
    loss_sum: Amount = 0.0
    top1_hits: Count = 0
    top3_hits: Count = 0
    loading: Amount = 0.0
    computing: Amount = 0.0

    @property
    def loss(self) -> float:
        return self.loss_sum / max(1, self.videos)

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.top1_hits / max(1, self.videos)

    @property
    def top3(self) -> float:
        """Percent."""
        return 100 * self.top3_hits / max(1, self.videos)

    @property
    def waiting(self) -> float:
        """Share of the time that was spent waiting for data, percent."""
        return 100 * self.loading / max(1e-9, self.loading + self.computing)

    @property
    def clips_per_second(self) -> float:
        return self.clips / max(1e-9, self.loading + self.computing)


def count_flops(model: nn.Module, inputs: Tensor, backward: bool = False) -> int:
    """Floating point operations of products and convolutions; the model stays as it is.

    A multiplication and its addition are two. On the meta device nothing is computed. `backward`:
    count the backward pass, too.
    """
    was_training = model.training
    model.eval()  # the same products, and batch statistics stay as they are
    with (  # without oneDNN and cuDNN an LSTM consists of products that can be counted
        torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
        _without_cudnn(),
        FlopCounterMode(display=False, custom_mapping=_BACKWARD_FLOPS) as counter,
        torch.set_grad_enabled(backward),
    ):
        outputs = model(inputs)
        if backward:
            outputs.sum().backward()
            model.zero_grad(set_to_none=True)
    model.train(was_training)
    return counter.get_total_flops()


def _conv_backward_flops(grad: Sequence, x: Sequence, weight: Sequence, *rest, **_) -> int:
    """Of shapes: each gradient costs what the forward pass did.

    torch's own formula takes the weights of a grouped convolution for dense ones (2.15).
    """
    transposed, wanted = rest[4], rest[7]  # after bias, stride, padding, dilation; mask
    return conv_flop_count(x, weight, grad, transposed) * sum(wanted[:2])


_BACKWARD_FLOPS = {torch.ops.aten.convolution_backward: _conv_backward_flops}


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """cudnn.flags() fails once convolutions have a precision of their own (torch 2.11 to 2.15)."""
    was_enabled, torch.backends.cudnn.enabled = torch.backends.cudnn.enabled, False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = was_enabled


class MatrixRate(NamedTuple):
    """Operations a second in products of two matrices, and of which ones."""

    operations: float
    which: str


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    sizes: Sequence[int] = (512, 1024, 2048, 4096),
    seconds: float = 0.3,
) -> MatrixRate:
    """The fastest of products of square matrices, of several sizes and both layouts of the second.

    Each kind is repeated for so many seconds, at least once; the best one counts. Larger products
    of a layout are left out once one takes over a second, as of a type that the CPU has no units
    for.
    """
    best = MatrixRate(0.0, "")
    together = 16 if device.type == "cuda" else 1  # as waiting for a GPU takes time
    for layout in ("plain", "transposed"):
        for size in sizes:
            a, b = torch.rand(2, size, size, device=device).to(dtype)
            second = b if layout == "plain" else b.T
            end = time.perf_counter() + seconds
            while True:
                start = time.perf_counter()
                for _ in range(together):
                    product = a @ second
                product[0, 0].item()  # waits for the result
                now = time.perf_counter()
                rate = 2 * size**3 * together / (now - start)
                name = f"products of size {size}, {layout}, {dtype}".replace("torch.", "")
                best = max(best, MatrixRate(rate, name))
                if now >= end:
                    break
            if now - start > 1:
                break
    return best


def mfu(flops: float, clips_per_second: float, rate: float) -> float:
    """Model FLOPs utilisation, percent: how much of the machine's rate a training uses.

    Args:
        flops: operations for one clip, forward and backward.
        rate: operations a second that the machine can do, such as that of its matrix_rate.
    """
    return 100 * flops * clips_per_second / rate
