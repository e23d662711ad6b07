"""A token cache as a dataset, and a network that starts at its tokens instead of clips.

The network is built, filled and saved as ever; its forward pass starts from what the cache holds.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets import DataError, Split
from datasets.clips import IGNORED
from datasets.fingerprint import fingerprint
from datasets.samplers import Padding
from datasets.sources.choose import FOLDERS, Source
from datasets.sources.folders import FrameNames
from engine.config import DataConfig
from engine.data import SUBSETS, data_folder, lists_folder, open_split, warn_of_other_data
from engine.files import DEFAULT_CACHE, ROOT, CheckpointError, resolve
from engine.tokens.about import METADATA_FILE, list_digest, same_data
from engine.tokens.cache import (
    CachedSubset,
    TokenCache,
    cache_name,
    default_folder,
    encoder_hash,
    open_cache,
)
from engine.weights.choose import AUTO, NO_WEIGHTS
from models import ArchSpec, VideoNet, get_arch
from video_transforms import NO_FLIP


class TokenDataset(Dataset):
    """One view of each video: item i is (tokens, label), float16 or float32 (1, ...) and an int.

    In training it is a function of (seed, epoch, i): every view once, in an order of their own
    for each video, then anew. Otherwise it is the first. The label of `Padding` is IGNORED.
    """

    def __init__(self, subset: CachedSubset, training: bool, seed: int = 0):
        self.subset, self.training, self.seed = subset, training, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, so that it takes other views."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.subset.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if isinstance(index, Padding):
            return self[int(index)][0], IGNORED
        views = self.subset.tokens[index]
        view = self._choose(index, len(views)) if self.training else 0
        return torch.from_numpy(np.array(views[view : view + 1])), int(self.subset.labels[index])

    def _choose(self, index: int, number: int) -> int:
        turn, place = divmod(self.epoch, number)
        return int(np.random.default_rng((self.seed, turn, index)).permutation(number)[place])


def check_encoder(model: VideoNet, cache: TokenCache) -> None:
    """Raises CheckpointError unless the network's frozen part is what made the cache."""
    weights = cache.metadata["weights"]
    if encoder_hash(model) == weights["sha256"]:
        return
    made_with = weights["path"] or f"new weights of --seed {cache.metadata['views']['seed']}"
    raise CheckpointError(
        f"the backbone's weights are not those that {cache.folder} was made with ({made_with}); "
        "use those, or make a cache with these"
    )


def start_at_tokens(model: VideoNet, check: bool, cache: TokenCache) -> None:
    """Makes a network take what the cache holds in place of clips, and freezes all below.

    From then on it refuses weights that are not those that the cache was made with; with `check`
    its present ones too.
    """
    model.starts_at = cache.metadata["at"]
    if check:
        check_encoder(model, cache)
    model.register_load_state_dict_post_hook(lambda model, _: check_encoder(model, cache))
    freeze_encoder(model, cache.metadata["at"])
    _check_shape(model, cache)


@torch.no_grad()
def _check_shape(model: VideoNet, cache: TokenCache) -> None:
    """Raises DataError unless the network can start at a view of the cache's."""
    view = torch.zeros((1, *cache.view_shape), device=next(model.parameters()).device)
    was_training = model.training
    try:
        model.eval()(view)
    except (RuntimeError, IndexError, ValueError) as error:
        raise DataError(
            f"{cache.folder} holds tokens of the shape {cache.view_shape}, which "
            f"{model.spec.name} cannot take ({str(error).splitlines()[0]})"
        ) from None
    finally:
        model.train(was_training)


def freeze_encoder(model: VideoNet, at: str | None = None) -> None:
    """Makes a network start in front of the stage `at`, or at what `encode` gives; what is below
    does not learn."""
    model.starts_at = at
    for name in model.encoder_parts():
        model.get_submodule(name).requires_grad_(False)
    model.from_encoded = at is None


def cached_weights(asked: str, cache: TokenCache) -> str:
    """What `--weights auto` means with a cache: the file that it was made with."""
    path = cache.metadata["weights"]["path"]
    if asked != AUTO:
        return asked
    if path is None:
        return NO_WEIGHTS
    return path if Path(path).is_file() else AUTO


def find_cache(
    asked: Path,
    data: DataConfig,
    spec: ArchSpec,
    subsets: tuple[str, ...] = SUBSETS,
    at: str | None = None,
) -> TokenCache:
    """The cache that --cache and --at mean: the default one, a folder, or one in it.

    Raises DataError unless it is complete and of this dataset, split and backbone.
    """
    default = Path(default_folder(spec, data.dataset, data.split, at))
    folder = ROOT / default if asked == DEFAULT_CACHE else resolve(asked, "")
    if not (folder / METADATA_FILE).exists() and (folder / default.name / METADATA_FILE).exists():
        folder = folder / default.name
    cache = open_cache(folder, subsets)
    wanted = {"dataset": data.dataset, "split": data.split, "tokens": cache_name(spec, at)}
    for key, value in wanted.items():
        if cache.metadata.get(key) != value:
            raise DataError(
                f"{folder} is a cache of the {key} {cache.metadata.get(key)}, not of {value}; "
                "make one with scripts/cache_tokens.py"
            )
    return cache


def open_cached_split(
    data: DataConfig, spec: ArchSpec, cache: TokenCache, subsets: tuple[str, ...] = SUBSETS
) -> Split:
    """The lists that the cache was made of; lists and frames, where they are here, must agree."""
    frames, lists, metadata = data_folder(data), lists_folder(data) / data.dataset, cache.metadata
    if frames.is_dir() and lists.is_dir():
        split = open_split(data, spec, subsets)
        for subset in subsets:
            then, now = metadata["fingerprint"][subset], list_digest(getattr(split, subset))
            if not same_data(then, now):
                raise DataError(
                    f"{cache.folder} was made of another '{subset}' list than the one in {lists} "
                    f"({then} then, {now} now); make the cache again"
                )
        made_of = {"fingerprint": metadata["data"]}
        warn_of_other_data(made_of, fingerprint(split), cache.folder, subsets)
        return split
    return cached_split(cache, frames)


def cached_split(cache: TokenCache, frames: Path = Path()) -> Split:
    """The lists as the cache remembers them."""
    metadata = cache.metadata
    modality = get_arch(metadata["arch"]).modality
    return Split(
        dataset=metadata["dataset"],
        number=metadata["split"],
        modality=modality,
        train=cache.train.records,
        val=cache.val.records,
        class_names=metadata["class_names"],
        source=Source(FOLDERS, modality, frames, FrameNames()),
        may_flip=metadata["views"]["mirror"] != NO_FLIP,
    )
