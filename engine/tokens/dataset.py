"""Training and testing on a token cache: the whole network, its frozen part taken from files.

The network is built, filled and saved as ever; only its forward pass starts from what the cache
holds. So learner, trainer and checkpoints are those of every training.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets import DataError, Split
from datasets.clips import IGNORED
from datasets.fingerprint import fingerprint as data_fingerprint
from datasets.samplers import Padding, TrainingBatches, ValidationBatches
from datasets.sources.choose import FOLDERS, Source
from datasets.sources.folders import FrameNames
from engine import UsageError, distributed
from engine.data import Stream, Training, build_stream, data_folder, open_split
from engine.data_check import warn_of_other_data
from engine.distributed import choose_device
from engine.files import DEFAULT_CACHE, ROOT, CheckpointError, resolve, run_folder
from engine.rate import measure_gauge
from engine.tokens.cache import (
    ABOUT,
    PARTS,
    CachedPart,
    TokenCache,
    cache_name,
    default_folder,
    encoder_hash,
    fingerprint,
    open_cache,
    same_data,
)
from engine.training.build import prepare_model
from engine.weights.choose import AUTO, NO_WEIGHTS, start_from_weights
from models import ArchSpec, VideoNet, create_model, get_arch
from video_transforms import NO_FLIP

BATCH_SIZE = 64  # of a test's views


class TokenDataset(Dataset):
    """One view of each video: item i is (tokens, label), float16 (1, ...) and an int.

    In training it is a function of (seed, epoch, i): every view once, in an order of their own
    for each video, then anew. Otherwise it is the first. The label of `Padding` is IGNORED.
    """

    def __init__(self, part: CachedPart, training: bool, seed: int = 0):
        self.part, self.training, self.seed = part, training, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, so that it takes other views."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.part.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if isinstance(index, Padding):
            return self[int(index)][0], IGNORED
        views = self.part.tokens[index]
        view = self._choose(index, len(views)) if self.training else 0
        return torch.from_numpy(np.array(views[view : view + 1])), int(self.part.labels[index])

    def _choose(self, index: int, number: int) -> int:
        turn, place = divmod(self.epoch, number)
        return int(np.random.default_rng((self.seed, turn, index)).permutation(number)[place])


def check_encoder(model: VideoNet, cache: TokenCache) -> None:
    """Raises CheckpointError unless the network's frozen part is what made the cache."""
    weights = cache.about["weights"]
    if encoder_hash(model) == weights["sha256"]:
        return
    made_with = weights["path"] or f"new weights of --seed {cache.about['views']['seed']}"
    raise CheckpointError(
        f"the backbone's weights are not those that {cache.folder} was made with ({made_with}); "
        "use those, or make a cache with these"
    )


def start_at_tokens(model: VideoNet, cache: TokenCache) -> None:
    """Makes a network take what the cache holds in place of clips, and freezes all below.

    From then on it refuses weights that are not those that the cache was made with.
    """
    model.register_load_state_dict_post_hook(lambda model, _: check_encoder(model, cache))
    for name in model.encoder_parts():
        model.get_submodule(name).requires_grad_(False)
    model.from_encoded = True


def find_cache(args: argparse.Namespace, spec: ArchSpec, parts: tuple[str, ...]) -> TokenCache:
    """The cache that --cache means: the default one, a folder, or one in it.

    Raises DataError unless it is complete and of this dataset, split and backbone.
    """
    default = Path(default_folder(spec, args.dataset, args.split))
    folder = ROOT / default if args.cache == DEFAULT_CACHE else resolve(args.cache, "")
    if not (folder / ABOUT).exists() and (folder / default.name / ABOUT).exists():
        folder = folder / default.name
    cache = open_cache(folder, parts)
    asked = {"dataset": args.dataset, "split": args.split, "tokens": cache_name(spec)}
    for key, value in asked.items():
        if cache.about.get(key) != value:
            raise DataError(
                f"{folder} is a cache of the {key} {cache.about.get(key)}, not of {value}; "
                "make one with scripts/cache_tokens.py"
            )
    return cache


def open_cached_split(
    args: argparse.Namespace, spec: ArchSpec, cache: TokenCache, parts: tuple[str, ...]
) -> Split:
    """The lists that the cache was made of; lists and frames, where they are here, must agree."""
    frames = data_folder(args)
    lists = resolve(args.settings, "datasets/settings") / args.dataset
    if frames.is_dir() and lists.is_dir():
        split = open_split(args, spec, parts)
        for part in parts:
            then, now = cache.about["fingerprint"][part], fingerprint(getattr(split, part))
            if not same_data(then, now):
                raise DataError(
                    f"{cache.folder} was made of another '{part}' list than the one in {lists} "
                    f"({then} then, {now} now); make the cache again"
                )
        made_of = {"fingerprint": cache.about["data"]}
        warn_of_other_data(made_of, data_fingerprint(split), cache.folder, parts)
        return split
    return Split(
        dataset=args.dataset,
        number=args.split,
        modality=spec.modality,
        train=cache.train.records,
        val=cache.val.records,
        class_names=cache.about["class_names"],
        frames=frames,
        names=FrameNames(),
        source=Source(FOLDERS, spec.modality, frames, FrameNames()),
        may_flip=cache.about["views"]["mirror"] != NO_FLIP,
    )


def build_cached_training(args: argparse.Namespace) -> Training:
    """As `build_training`, on the cache that `args.cache` names."""
    if args.num_seg != 1 or args.flip is not None:
        raise UsageError(
            "--num-seg and --flip say which clips are made; with --cache they are made already"
        )
    args.freeze_backbone = True  # what checkpoints shall say of this training
    spec = get_arch(args.arch)
    device = choose_device(args.device)
    cache = find_cache(args, spec, PARTS)
    split = open_cached_split(args, spec, cache, PARTS)
    torch.manual_seed(args.seed)
    model = create_model(spec.name, len(split.class_names))
    if not (args.resume or args.evaluate):  # a checkpoint brings all weights
        print(start_from_weights(model, _weights(args, cache), resolve(None, "weights")))
        check_encoder(model, cache)
    model = prepare_model(model.to(device), args, device)
    start_at_tokens(model, cache)
    place = (distributed.rank(), distributed.world_size())
    train = TokenDataset(cache.train, training=True, seed=args.seed)
    val = TokenDataset(cache.central, training=False)
    print(f"tokens: {cache.folder}")
    return Training(
        spec=spec,
        split=split,
        model=model,
        device=device,
        normalize=torch.Tensor.float,  # the cache's are half precision
        train_loader=_loader(
            train, TrainingBatches(len(train), args.batch_size, args.seed, *place), device
        ),
        val_loader=_loader(val, ValidationBatches(len(val), args.batch_size, *place), device),
        flip=cache.about["views"]["mirror"],
        folder=run_folder(args.output, args.dataset, spec.name, args.split),
        fingerprint={k: v for k, v in cache.about["data"].items() if k != "scaled_decoding"},
        cache=cache,
        gauge=None if args.evaluate else measure_gauge(model, train[0][0].float(), device),
    )


def _weights(args: argparse.Namespace, cache: TokenCache) -> str:
    """What `--weights auto` means with a cache: the file that it was made with."""
    path = cache.about["weights"]["path"]
    if args.weights != AUTO:
        return args.weights
    if path is None:
        return NO_WEIGHTS
    return path if Path(path).is_file() else AUTO


def _loader(dataset: TokenDataset, batches: Sampler[list[int]], device: torch.device) -> DataLoader:
    """Without processes of its own: reading a view takes less time than sending it."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # leaves the training's random numbers alone
    )


def build_cached_stream(args: argparse.Namespace, arch: str, checkpoint: Path | None) -> Stream:
    """As `build_stream`, with the test's views from the cache that `args.cache` names."""
    spec = get_arch(arch)
    cache = find_cache(args, spec, ("val",))
    split = open_cached_split(args, spec, cache, ("val",))
    stream = build_stream(args, arch, checkpoint, split)
    check_encoder(stream.model, cache)
    stream.cache = cache
    start_at_tokens(stream.model, cache)
    return stream


@torch.inference_mode()
def score_cached(
    stream: Stream, clip_rule: str, ten_crop: bool, batch_size: int | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores of all test videos, float32 (videos, classes), and of each one's clips.

    Raises UsageError if the test's views are not in the cache.
    """
    part, step, crops = _test_views(stream, clip_rule, ten_crop)
    clip_scores = []
    for row, tokens in enumerate(part.tokens):
        stream.order.start(row)
        chosen = torch.from_numpy(np.array(tokens[::step]))
        logits = [
            stream.model(batch.to(stream.device).float(), stream.order).float()
            for batch in chosen.split(batch_size or BATCH_SIZE)
        ]
        by_clip = torch.cat(logits).unflatten(0, (-1, crops)).mean(dim=1)
        clip_scores.append(by_clip.cpu().numpy())
    return np.stack([clips.mean(axis=0) for clips in clip_scores]), clip_scores


def _test_views(stream: Stream, clip_rule: str, ten_crop: bool) -> tuple[CachedPart, int, int]:
    """Which part of the cache has a test's views, every how many-th it takes, crops of a clip."""
    cache, views = stream.cache, stream.cache.about["views"]
    if ten_crop and stream.flip != views["mirror"]:
        raise UsageError(
            f"{stream.checkpoint} mirrors clips by the rule '{stream.flip}', the views in "
            f"{cache.folder} are mirrored by '{views['mirror']}'; test with --no-ten-crop"
        )
    if clip_rule == views["clips"]:
        if not ten_crop:
            return cache.val, views["crops"], 1
        if views["crops"] > 1:
            return cache.val, 1, views["crops"]
    elif clip_rule == "single" and not ten_crop:
        return cache.central, 1, 1
    raise UsageError(
        f"{cache.folder} has the views of --clips {views['clips']} with {views['crops']} crops, "
        f"this test wants {clip_rule} clips with {'ten crops' if ten_crop else 'one crop'}; make "
        "a cache of those (--cache DIR), or test without --cache"
    )
