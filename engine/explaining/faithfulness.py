"""Is the attention an explanation? What deleting the most attended tokens costs, and random ones.

Tokens are deleted from what the temporal head sees, for each video of a test:

    cost(S) = L(tokens) - L(tokens without S)

L is the log odds of the class that is predicted from all tokens. A deleted token is replaced by the
mean of the tokens that stay. After "deletion" of Petsiuk et al., arXiv 1806.07421.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from engine import UsageError
from engine.analysis.statistics import LEVEL, RESAMPLES, SEED, bootstrap_interval
from engine.explaining.reasons import check_logits, class_attention, log_odds
from engine.testing.stream import Stream
from models import VideoNet

DRAWS = 20  # random deletions of a video, whose mean is taken
KINDS = ("most", "random", "least")


@dataclass(frozen=True)
class Deletions:
    """What deletions cost, nats.

    Attributes:
        costs: number of deleted tokens -> float (videos, 3), by KINDS: the most attended,
            the mean over DRAWS random choices, the least attended.
        tokens: how many there are, of the pathway that has fewest.
    """

    costs: Mapping[int, np.ndarray]
    tokens: int


def measure_deletions(stream: Stream) -> Deletions:
    """Costs over the videos of a test, for 1 token up to half of them.

    Of each video the first view is taken. A pathway of more tokens loses as large a share of them.
    A video that cannot be read is recorded in `stream.unscored` and left out.
    Raises ArchError for a head without a class token, UsageError if no video can be read.
    """
    records, costs = stream.split.val, []
    rows = range(len(records))
    bar = tqdm(stream.read(rows), stream.spec.name, unit="clip", dynamic_ncols=True, disable=None)
    last = None
    for clip in bar:
        if clip.row == last:
            continue
        last = clip.row
        if clip.error:
            stream.unscored[records[clip.row].folder] = clip.error
            continue
        view = np.ascontiguousarray(clip.views[0])[None]
        with torch.inference_mode():
            inputs = stream.prepare(torch.from_numpy(view).to(stream.device))
            tokens = stream.model.tokens(stream.encode(inputs))
            costs.append(deletion_costs(stream.model, tokens, seed=clip.row))
    if not costs:
        raise UsageError("not one video of the test can be read; there is nothing to measure")
    kept = {count: np.stack([own[count] for own in costs]) for count in costs[0]}
    return Deletions(kept, 2 * max(kept))


@torch.no_grad()
def deletion_costs(
    network: VideoNet, tokens: Tensor | dict[str, Tensor], seed: int
) -> dict[int, np.ndarray]:
    """Of one clip's tokens, (1, T', D) or those of each pathway: deleted tokens -> costs (3,)."""
    paths = tokens if isinstance(tokens, dict) else {"": tokens}
    attention = {path: own[0].mean(dim=0) for path, own in class_attention(network, tokens).items()}
    rng = np.random.default_rng((SEED, seed))
    whole = network.classify_tokens(tokens).float()
    check_logits(network, whole)
    target = int(whole.argmax())
    fewest, costs = min(own.shape[1] for own in paths.values()), {}
    for count in range(1, fewest // 2 + 1):
        changed = {}
        for path, own in paths.items():
            length = own.shape[1]
            number = count * length // fewest
            order = attention[path].argsort(descending=True).cpu()
            random = [torch.from_numpy(rng.permutation(length)) for _ in range(DRAWS)]
            chosen = torch.stack([order, order.flip(0), *random])[:, :number]  # (2 + DRAWS, number)
            changed[path] = delete_tokens(own, chosen.to(own.device))
        logits = network.classify_tokens(changed if isinstance(tokens, dict) else changed[""])
        cost = (log_odds(whole, target) - log_odds(logits.float(), target)).numpy(force=True)
        costs[count] = np.array([cost[0], cost[2:].mean(), cost[1]])
    return costs


def delete_tokens(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (1, T', D) without those at `places`, int (N, k): (N, T', D).

    Each deleted token is the mean of the T' - k that stay.
    """
    gone = torch.zeros(len(places), tokens.shape[1], device=tokens.device, dtype=torch.bool)
    gone.scatter_(1, places, True)
    stays = (~gone).to(tokens.dtype)[..., None]  # (N, T', 1)
    mean = (tokens * stays).sum(dim=1, keepdim=True) / stays.sum(dim=1, keepdim=True)
    return torch.where(gone[..., None], mean, tokens)


def summarize_deletions(found: Deletions) -> dict:
    """Mean costs, and the most attended tokens' less the random ones' with a paired interval."""
    rows = []
    for count, costs in found.costs.items():
        difference = costs[:, 0] - costs[:, 1]
        interval = bootstrap_interval([difference], lambda drawn: drawn.mean(axis=-1))
        means = costs.mean(axis=0).tolist()
        row = {"deleted": count} | dict(zip(KINDS, means, strict=True))
        row |= {"difference": float(difference.mean())}
        rows.append(row | {"interval": None if interval is None else interval.tolist()})
    return {
        "videos": len(difference),
        "unit": "nats of the predicted class's log odds",
        "draws": DRAWS,
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": SEED,
        "rows": rows,
    }


def deletion_cells(summary: Mapping) -> tuple[list[str], list[Sequence[str]]]:
    """The same as a table's titles and cells."""
    head = ["deleted tokens", *(f"{kind} attended" if kind != "random" else kind for kind in KINDS)]
    head += [f"most - random [{summary['level']:.0%}]"]
    cells = []
    for row in summary["rows"]:
        ends = "" if row["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*row["interval"])
        costs = [f"{row[kind]:+.3f}" for kind in KINDS]
        cells.append([str(row["deleted"]), *costs, f"{row['difference']:+.3f}{ends}"])
    return head, cells
