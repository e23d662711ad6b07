"""An RGB and a flow token cache as one: of each view the RGB tokens, then the flow tokens.

Caches of one seed hold the same views: the k-th training view of a video is cropped and flipped
alike in both and begins at the same frame or the next, because a flow list counts a frame less
(where it counts no more than a clip's, the draws may differ). A test's clips lie alike too, except
where that frame costs flow a clip: the others then begin half a clip later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from datasets import DataError
from engine.data import SUBSETS
from engine.tokens.cache import CachedSubset, TokenCache, count_views
from models import get_arch
from video_transforms import NO_FLIP


@dataclass(frozen=True)
class JoinedTokens(Sequence[np.ndarray]):
    """Each video's views, (views, 2 T', D), read when asked for.

    A view that one stream alone has, at the end of a multi-clip test, is left out.
    """

    rgb: Sequence[np.ndarray]
    flow: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.rgb)

    def take(self, videos: Sequence[int]) -> "JoinedTokens":
        """Those of some videos."""
        return JoinedTokens(self.rgb.take(videos), self.flow.take(videos))

    def __getitem__(self, video: int) -> np.ndarray:
        rgb, flow = self.rgb[video], self.flow[video]
        views = min(len(rgb), len(flow))
        return np.concatenate([rgb[:views], flow[:views]], axis=1)


def join_caches(rgb: TokenCache, flow: TokenCache) -> TokenCache:
    """A cache of views (2 T', D), for networks whose row has `streams=2`.

    Its folder, architecture and records are RGB's; `tokens`, `weights` and `fingerprint` tell both.
    Raises DataError, naming what differs, unless both hold the same views of the same videos.
    """
    different = list(_differences(rgb, flow))
    if different:
        raise DataError(f"cannot join {rgb.folder} and {flow.folder}: {'; '.join(different)}")
    ours, theirs = rgb.metadata, flow.metadata
    hashes = [metadata["weights"]["sha256"] for metadata in (ours, theirs)]
    both = {
        "tokens": f"{ours['tokens']}+{theirs['tokens']}",
        "weights": {"path": None, "sha256": "+".join(hashes)},
        "fingerprint": {"rgb": ours["fingerprint"], "flow": theirs["fingerprint"]},
    }
    joined = {}
    for subset in (*SUBSETS, "central"):
        own, other = getattr(rgb, subset), getattr(flow, subset)
        tokens = JoinedTokens(own.tokens, other.tokens)
        joined[subset] = CachedSubset(own.records, tokens, own.labels)
    length, width = rgb.view_shape
    return TokenCache(rgb.folder, ours | both, (2 * length, width), **joined)


def _differences(rgb: TokenCache, flow: TokenCache) -> Iterator[str]:
    """Why the caches cannot be joined."""
    # modality
    for cache, wanted in ((rgb, "rgb"), (flow, "flow")):
        if (found := get_arch(cache.metadata["arch"]).modality) != wanted:
            yield f"{cache.folder} is of {found}, not of {wanted}"
        if len(cache.view_shape) != 2:
            yield f"{cache.folder} holds maps, not tokens"
    # views
    ours, theirs = _facts(rgb), _facts(flow)
    for key in ours:
        if ours[key] != theirs[key]:
            yield f"{key} {ours[key]!s:.80} and {theirs[key]!s:.80}"
    # lists; a flow list counts a frame less
    for subset in SUBSETS:
        lists = [
            [f"{record.folder} {record.label}" for record in getattr(cache, subset).records]
            for cache in (rgb, flow)
        ]
        for pair in zip_longest(*lists):
            if pair[0] != pair[1]:
                yield f"the '{subset}' lists, first in {pair[0]} and {pair[1]}"
                return
    for own, other in zip(rgb.val.records, flow.val.records, strict=True):
        counts = [count_views(c.metadata, "val", r)[0] for c, r in ((rgb, own), (flow, other))]
        if abs(counts[0] - counts[1]) > rgb.metadata["views"]["crops"]:
            yield f"test views of '{own.folder}' {counts[0]} and {counts[1]}"
            return


def _facts(cache: TokenCache) -> dict[str, object]:
    """What both caches must have in common, in a message's words."""
    metadata, views = cache.metadata, cache.metadata["views"]
    return {
        "dataset": metadata["dataset"],
        "split": metadata["split"],
        "classes": metadata["class_names"],
        "frames of a clip": metadata["frames"],
        "tokens (T', D)": cache.view_shape,
        "training views": views["train"],
        "seed": views["seed"],
        "test clips": views["clips"],
        "crops": views["crops"],
        "flips": views["mirror"] != NO_FLIP,
    }
