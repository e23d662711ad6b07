"""What the flags say, as frozen dataclasses: one field a flag, named and defaulted here.

`engine/cli/` fills them once; below it nothing knows of flags.
"""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets.prepare.collect import Shard


@dataclass(frozen=True)
class DataConfig:
    """Which data are read, from where, by how many processes, and where is computed."""

    dataset: str = "hmdb51"
    split: int = 1
    settings: Path | None = None  # None: the repository's own folder, also below
    frames: Path | None = None
    source: str | None = None  # None: what is there
    scaled_decoding: bool = False
    max_megapixels: float = 64.0  # of an image; a larger one is refused
    workers: int = 2
    device: str | None = None


@dataclass(frozen=True)
class AugmentConfig:
    """How training clips are augmented, beyond crops and flips."""

    rand_augment: int | None = None  # magnitude, 0 to 30; None: none
    random_erasing: float = 0.0  # probability
    color_jitter: float = 0.0  # strength, 0 to 1


@dataclass(frozen=True)
class Recipe(AugmentConfig):
    """How a network learns; a checkpoint keeps these fields under `flags`."""

    batch_size: int = 8
    iter_size: int = 1
    lr: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 1e-3
    num_seg: int = 1
    epochs: int = 200
    scheduler: str = "plateau"
    warmup_epochs: int = 0
    amp: str = "off"
    clip_grad: float | None = None
    ema: float | None = None
    freeze_bn: bool = False
    freeze_backbone: bool = False
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    drop_tokens: float | None = None
    drop_path: float | None = None  # None: as the backbone has it
    sync_bn: bool = False
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class NamedRecipe:
    """What `--recipe NAME` stands for: flags of a training, by their fields."""

    optimizer: str
    fields: dict

    def flags(self) -> list[str]:
        """As typed."""
        found = []
        for name, value in self.fields.items():
            found += [f"--{name.replace('_', '-')}"] + ([] if value is True else [f"{value}"])
        return found


FEW_VIDEOS = "few-videos"
RECIPES = {
    "paper-sgd": NamedRecipe("sgd", {"lr": 1e-2, "batch_size": 4, "iter_size": 6}),
    "paper-adamw": NamedRecipe("adamw", {"lr": 1e-5, "batch_size": 8, "iter_size": 16}),
    # a hundred videos or fewer, on pretrained weights; docs/RESULTS.md has what it is worth
    FEW_VIDEOS: NamedRecipe(
        "adamw",
        {
            "lr": 1e-4,
            "batch_size": 16,
            "iter_size": 1,
            "epochs": 60,
            "scheduler": "cosine",
            "warmup_epochs": 2,
            "freeze_bn": True,
        },
    ),
}


@dataclass(frozen=True)
class SpeedConfig:
    """How a network is computed (docs/PERFORMANCE.md); None: as the preset says."""

    speed: str | None = None  # None: fast on GPUs that compute bfloat16, else exact
    amp: str | None = None
    channels_last: bool | None = None
    compile: bool | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """A training: data, recipe, what it starts from, what it writes."""

    data: DataConfig
    recipe: Recipe
    arch: str
    computing: SpeedConfig = field(default_factory=SpeedConfig)
    auto_batch: bool = False  # batch size and iter size as memory allows, their product as it is
    flip: bool | None = None  # None: as the dataset allows
    seed: int = 0
    max_steps: int | None = None
    start_epoch: int | None = None
    weights: str = "auto"
    cache: Path | None = None  # None: clips; else the tokens of a frozen backbone
    at: str | None = None  # with a cache: the stage whose input it keeps; None: tokens
    output: Path | None = None
    resume: str | None = None
    evaluate: bool = False
    print_freq: int = 400
    save_freq: int = 1
    save_steps: int | None = None
    keep: int = 0
    on_bad_sample: str = "stop"
    max_bad: float = 1.0
    skip_doctor: bool = False

    @property
    def is_new(self) -> bool:
        """Whether the network starts from pretrained weights, not from a checkpoint."""
        return not (self.resume or self.evaluate)

    def flags(self) -> dict:
        """All flags by name, as plain values."""
        nested = asdict(self)
        flat = nested.pop("data") | nested.pop("computing") | nested.pop("recipe") | nested
        return {key: str(v) if isinstance(v, Path) else v for key, v in flat.items()}


@dataclass(frozen=True)
class TestConfig:
    """A test: data, views of a video, where the runs are and where results go."""

    data: DataConfig
    computing: SpeedConfig = field(default_factory=SpeedConfig)
    clips: str = "multi"  # a key of CLIP_RULES
    ten_crop: bool = True
    time_order: str = "normal"
    batch_size: int | None = None
    runs: Path | None = None
    results: Path | None = None
    scores: Path | None = None
    html: bool = False
    cache: Path | None = None
    at: str | None = None


@dataclass(frozen=True)
class ReportConfig:
    """A report on score files; None: what the files' JSONs say."""

    dataset: str | None = None
    settings: Path | None = None
    frames: Path | None = None
    runs: Path | None = None
    output: Path | None = None
    max_mb: float = 20.0  # of the whole file, in millions of bytes


@dataclass(frozen=True)
class CacheConfig:
    """A token cache: data, the network that makes it, the views, this process's share."""

    data: DataConfig
    arch: str
    computing: SpeedConfig = field(default_factory=SpeedConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    weights: str = "auto"
    checkpoint: Path | None = None
    batch_size: int | None = None
    views: int = 8
    clips: str = "multi"
    ten_crop: bool = True
    flip: bool | None = None
    seed: int = 0
    part: str = "both"
    shard: Shard = Shard()
    cache: Path | None = None
    at: str | None = None
    numbers: str = "float16"


@dataclass(frozen=True)
class TimelineRules:
    """How a video's windows become a timeline; seconds, and probabilities from 0 to 1."""

    step: float | None = None  # between windows; None: a quarter of a clip
    smoothing: float = 1.0  # of the moving average
    enter: float = 0.5  # from which probability on an action begins
    leave: float = 0.35  # below which it ends
    gap: float = 0.5  # over which segments of one class become one
    shortest: float | None = None  # of a segment; None: half a window
    background: str | None = None  # the class in which nothing happens


@dataclass(frozen=True)
class PredictConfig:
    """Trained networks applied to videos: which, to what, how, and what is written."""

    sources: tuple[str, ...]
    network: Path  # a run's folder or a file
    network_flow: Path | None = None
    computing: SpeedConfig = field(default_factory=SpeedConfig)
    rules: TimelineRules = field(default_factory=TimelineRules)
    device: str | None = None
    batch_size: int | None = None
    clips: str = "multi"
    ten_crop: bool | None = None  # None: for videos as a whole, not for timelines
    fps: float | None = None  # None: as the checkpoint says
    deadline: float = 30.0  # seconds that a source may give nothing
    top: int = 5
    json: Path | None = None
    csv: Path | None = None
    timeline: bool = False
    live: bool = False
    output: Path | None = None
    overlay: Path | None = None


@dataclass(frozen=True)
class AblationConfig:
    """An ablation: the heads, how they are tuned on token caches, what the report shows."""

    output: Path | None = None
    computing: SpeedConfig = field(default_factory=SpeedConfig)
    preset: str | None = None
    heads: tuple[str, ...] = ()
    base: str = "average"
    leave_one_out: bool = False  # test each group of the training list by networks of the others
    shots: int | None = None  # videos of each class that a tested network learns from; None: all
    seeds: int = 5
    device: str | None = None
    group: re.Pattern | None = None
    folds: int = 3
    fold_seeds: int = 2  # trainings of each fold
    budget: int = 8  # settings that a head may try, those that widen the grid included
    lr: tuple[float, ...] = (1e-4, 3e-4)
    weight_decay: tuple[float, ...] = (1e-3,)
    epochs: tuple[int, ...] = (30, 60)
    batch_size: int = 16
    tuned: tuple[Path, ...] = ()  # tuning.json of earlier ablations, in place of tuning
    stage_lr: float | None = None  # of the stages that learn from a cache; None: the head's
    time_order: tuple[str, ...] = ("normal",)
    subset: tuple[str, ...] = ()
