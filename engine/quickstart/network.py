"""Where a quickstart keeps things, and one of its networks: names, files, what tuning chose."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets.files import read_json
from datasets.lists import SUBSET_NAMES, read_list
from engine import UsageError
from engine.ablation.heads import Setting
from engine.ablation.protocol import groups_of
from engine.checkpoint import LAST
from engine.config import AblationConfig
from engine.files import ROOT, resolve, run_folder
from engine.tokens.about import METADATA_FILE
from engine.tokens.cache import default_folder
from engine.weights.choose import AUTO
from engine.weights.sources import WeightSource, present_file, sources_for
from models import ArchSpec, get_arch
from models.names import split_name, with_head

WEIGHTS = ROOT / "weights"
MOST_FOLDS = 3  # of cross-validation
DEFAULT = Setting("adamw", 1e-4, 1e-3, 60)  # where there is nothing to hold out


@dataclass(frozen=True)
class Places:
    """Where the files of a split lie: in the repository's folders, or in those of `output`."""

    dataset: str
    split: int
    output: Path | None = None

    def _in(self, default: str) -> Path:
        return (resolve(self.output, "") if self.output else ROOT) / default

    @property
    def frames(self) -> Path:
        return self._in(f"datasets/{self.dataset}_frames")

    @property
    def settings(self) -> Path:
        return self._in("datasets/settings")

    @property
    def tokens(self) -> Path:
        return self._in(f"datasets/{self.dataset}_tokens")

    @property
    def runs(self) -> Path:
        return self._in("checkpoint")

    @property
    def results(self) -> Path:
        return self._in("results")

    @property
    def folder(self) -> Path:
        """What is the quickstart's own."""
        return self.results / f"{self.dataset}_split{self.split}_quickstart"

    def flags(self, **elsewhere: Path) -> tuple[str, ...]:
        """Dataset and split, and flags for places that are not the default ones."""
        flags = ("--dataset", self.dataset, "--split", str(self.split))
        if self.output:
            elsewhere = {"frames": self.frames, "settings": self.settings} | elsewhere
            for name, path in elsewhere.items():
                flags += (f"--{name}", in_repository(path))
        return flags


def in_repository(path: Path) -> str:
    """A path as one types it in the repository."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


@dataclass(frozen=True)
class NetworkFiles:
    """One network: a head on a frozen backbone.

    Attributes:
        spec: its architecture.
        weights: what `--weights` says of its backbone.
    """

    spec: ArchSpec
    places: Places
    weights: str

    def on_flow(self) -> "NetworkFiles":
        """The same network on optical flow."""
        return replace(self, spec=get_arch(self._parts._replace(modality="flow").name))

    @property
    def _parts(self):
        parts = split_name(self.spec.name)
        if parts is None or parts.reduction or parts.fusion:
            raise UsageError(
                f"{self.spec.name}: a head trains on a frozen backbone without reduction, as in "
                "rgb_I3D64f_bert2"
            )
        return parts

    @property
    def head(self) -> str:
        """As ablate.py calls it."""
        return self._parts.head or "average"

    @property
    def backbone(self) -> str:
        """The architecture that its tokens are cached with."""
        return with_head(self.spec, "").name

    @property
    def lists(self) -> tuple[Path, ...]:
        folder, split = self.places.settings / self.places.dataset, self.places.split
        names = [f"{subset}_{self.spec.modality}_split{split}.txt" for subset in SUBSET_NAMES]
        return tuple(folder / name for name in names)

    @property
    def cache(self) -> Path:
        default = default_folder(self.spec, self.places.dataset, self.places.split)
        return self.places.tokens / Path(default).name

    @property
    def about(self) -> Path:
        return self.cache / METADATA_FILE

    @property
    def run(self) -> Path:
        places = self.places
        return run_folder(places.runs, places.dataset, self.spec.name, places.split)

    @property
    def checkpoint(self) -> Path:
        """The last epoch's, which is a whole network: nothing was chosen by the test list."""
        return self.run / LAST

    @property
    def tuning(self) -> Path:
        return self.places.folder / f"tuning_{self.spec.modality}"

    def source(self) -> WeightSource | None:
        """The weights to fetch, None if they are there, or none are wanted, or none can be had."""
        found = sources_for(self.spec) if self.weights == AUTO else []
        if any(present_file(source, WEIGHTS) for source in found):
            return None
        return next((source for source in found if not source.by_hand), None)

    def folds(self, config: AblationConfig) -> int:
        """Of the cross-validation; 1 where all training videos are one group."""
        if not self.lists[0].is_file():
            return MOST_FOLDS
        names = [record.folder for record in read_list(self.lists[0])]
        return min(MOST_FOLDS, len(set(groups_of(names, config.group))))

    def chosen(self) -> dict:
        """The setting that the tuning chose, else the default one."""
        path = self.tuning / "tuning.json"
        if not path.is_file():
            return asdict(DEFAULT)
        return read_json(path, dict)[self.head][str(self.places.split)]["chosen"]

    def scores(self, *others: "NetworkFiles") -> Path:
        """The score file of its test, or of a fusion with others."""
        names = "+".join(stream.spec.name for stream in (self, *others))
        stem = f"{self.places.dataset}_{names}_split{self.places.split}_multi_clip_one_crop"
        return self.places.results / f"{stem}.npz"
