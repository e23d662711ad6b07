"""Which frames each temporal token depends on; tokens that see all of them know their order.

    python scripts/receptive_field.py --arch rgb_I3D64f

For each token: the first and the last frame that change it at all, and the fewest frames in a row
that hold 90 % of the absolute gradient of its sum with respect to the clip (the effective receptive
field, arXiv 1701.04128). The clip is noise.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.command.start import run

import numpy as np
import torch
from tabulate import tabulate

from engine import UsageError
from engine.cli import new_parser
from engine.cli.flag_types import seed_number
from engine.files import resolve
from engine.weights.choose import AUTO, start_from_weights
from models import VideoNet, create_model

SHARE = 0.9


def gradient_by_frame(model: VideoNet, clip: torch.Tensor) -> np.ndarray:
    """(1, C, T, H, W) -> (T', T): the share of a token's absolute gradient on each frame."""
    clip = clip.requires_grad_()
    tokens = model.forward_tokens(clip)
    if isinstance(tokens, dict):
        raise UsageError(f"{model.spec.name} has tokens of two kinds; choose one of one pathway")
    shares = []
    for token in tokens[0]:
        (gradient,) = torch.autograd.grad(token.sum(), clip, retain_graph=True)
        by_frame = gradient.abs().sum(dim=(0, 1, 3, 4)).numpy()
        shares.append(by_frame / by_frame.sum())
    return np.stack(shares)


def span(shares: np.ndarray, share: float) -> tuple[int, int]:
    """First and last of the fewest frames in a row that hold that share of the sum."""
    sums = np.concatenate([[0.0], np.cumsum(shares)])
    for length in range(1, len(shares) + 1):
        held = sums[length:] - sums[:-length]
        if held.max() >= share * sums[-1]:
            break
    first = int(held.argmax())
    return first, first + length - 1


def main(argv: list[str] | None = None) -> int:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--arch", "-a", required=True, help="the network, one of scripts/list_archs.py")
    help = "pretrained weights, named as in training (auto)"
    add("--weights", default=AUTO, metavar="auto|none|NAME|FILE", help=help)
    add("--seed", type=seed_number, default=0, help="seed of noise and new weights (0)")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    model = create_model(args.arch, num_classes=2).eval()  # the classifier is not used
    print(start_from_weights(model, args.weights, resolve(None, "weights")))
    shares = gradient_by_frame(model, torch.randn(1, *model.spec.clip_shape))
    print(f"{args.arch}: {len(shares)} tokens of {shares.shape[1]} frames, counted from 0")
    rows = [(np.flatnonzero(own)[[0, -1]], span(own, SHARE)) for own in shares]
    rows = [["{} to {}".format(*seen), "{} to {}".format(*most)] for seen, most in rows]
    print(tabulate(rows, ["token", "sees frames", "90 % within"], showindex=True))
    return 0


if __name__ == "__main__":
    run(main)
