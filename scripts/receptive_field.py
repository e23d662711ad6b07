"""Which frames does a temporal token see? Tokens that see all of them know the order by themselves.

    python scripts/receptive_field.py --arch rgb_I3D64f

For each token the first and the last frame that change it at all, and the fewest frames in a row
that hold 90 % of the gradient of its sum with respect to the clip (the effective receptive field,
arXiv 1701.04128), on a clip of noise.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine import UsageError
from engine.cli import run
from engine.files import resolve
from engine.flag_types import seed_number
from engine.weights.choose import AUTO, start_from_weights
from models import VideoNet, create_model

CLASSES = 2  # the classifier takes no part
SHARE = 0.9


def gradient_by_frame(model: VideoNet, clip: torch.Tensor) -> np.ndarray:
    """(1, C, T, H, W) -> (T', T): what part of a token's absolute gradient falls on each frame."""
    clip = clip.requires_grad_()
    tokens = model.forward_tokens(clip)
    if isinstance(tokens, dict):
        raise UsageError(f"{model.spec.name} has tokens of two kinds; choose one of one pathway")
    shares = []
    for place in range(tokens.shape[1]):
        (gradient,) = torch.autograd.grad(tokens[0, place].sum(), clip, retain_graph=True)
        by_frame = gradient.abs().sum(dim=(0, 1, 3, 4)).numpy()
        shares.append(by_frame / by_frame.sum())
    return np.stack(shares)


def span(shares: np.ndarray, part: float) -> tuple[int, int]:
    """First and last of the fewest frames in a row that hold that part of all."""
    sums = np.concatenate([[0.0], np.cumsum(shares)])
    for length in range(1, len(shares) + 1):
        held = sums[length:] - sums[:-length]
        if held.max() >= part * sums[-1]:
            first = int(held.argmax())
            return first, first + length - 1
    return 0, len(shares) - 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", "-a", required=True)
    parser.add_argument(
        "--weights",
        default=AUTO,
        metavar="auto|none|NAME|FILE",
        help="as in training (%(default)s)",
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="of noise and new weights")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    model = create_model(args.arch, CLASSES).eval()
    print(start_from_weights(model, args.weights, resolve(None, "weights")))
    shares = gradient_by_frame(model, torch.randn(1, *model.spec.clip_shape))
    print(f"{args.arch}: {len(shares)} tokens of {shares.shape[1]} frames, counted from 0")
    print("token  sees frames  90 % within")
    for place, own in enumerate(shares):
        seen = np.flatnonzero(own)
        first, last = span(own, SHARE)
        print(f"{place:5d}  {seen[0]:4d} to {seen[-1]:3d}  {first:4d} to {last:3d}")
    return 0


if __name__ == "__main__":
    run(main)
