"""Shared networks: a folder of safetensors, a config, class names and a card; written and read.

    model.safetensors   the weights
    config.json         what a checkpoint says of them: architecture, input, flow rule, data, flags
    classes.txt         a class name a line, by number
    README.md           the card: engine/exporting/card.py

`read_weights_file` reads what any `--checkpoint` or `--weights` names: such a folder, its
model.safetensors, or a PyTorch file.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from datasets.files import DataError, check_file, printable, read_json, written_whole
from datasets.specs import read_class_names
from engine.files import CheckpointError, read_file, write_json

WEIGHTS_FILE, CONFIG_FILE, CLASSES_FILE, CARD_FILE = (
    "model.safetensors",
    "config.json",
    "classes.txt",
    "README.md",
)
# What of a checkpoint is about its network; the rest, such as the optimizer, continues a training.
SHARED_KEYS = (
    *("arch", "input", "mirror", "flow_bound", "dataset", "split", "fingerprint"),
    *("epoch", "best_prec1", "best_loss", "flags", "seed", "initial_weights"),
    *("format_version", "versions"),
)
MOST_CONFIG = 64 << 20  # bytes


def is_shared(path: Path) -> bool:
    """Whether a path is a shared network's folder or its file of weights."""
    return path.suffix == ".safetensors" or (path / WEIGHTS_FILE).exists()


def read_weights_file(path: Path, what: str = "checkpoint") -> dict:
    """What a file of weights holds, on the CPU; of a shared network as of a checkpoint.

    Raises CheckpointError for one that cannot be read.
    """
    if not is_shared(path):
        return read_file(path, what)
    weights = path / WEIGHTS_FILE if path.is_dir() else path
    try:
        config = read_json(check_file(weights.with_name(CONFIG_FILE)), dict, MOST_CONFIG)
        names = read_class_names(check_file(weights.with_name(CLASSES_FILE)))
        state_dict = load_file(check_file(weights, what))
    except DataError as error:
        raise CheckpointError(
            f"{error}; a shared network is {WEIGHTS_FILE}, {CONFIG_FILE} and {CLASSES_FILE} in a "
            "folder"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        reason = printable(str(error)).splitlines()[0][:200]
        raise CheckpointError(f"cannot read {weights}: {reason}; copy it again") from None
    known = {key: config[key] for key in SHARED_KEYS if key in config}
    return known | {"class_names": names, "state_dict": state_dict}


def write_shared(
    folder: Path, content: Mapping, state_dict: Mapping[str, Tensor], names: list[str], card: str
) -> None:
    """Writes a folder of its four files, the weights last, each whole.

    Args:
        content: a checkpoint's.
        names: the classes.
    """
    config = {key: _plain(content[key]) for key in SHARED_KEYS if key in content}
    write_json(folder / CONFIG_FILE, config)
    for file, text in ((CLASSES_FILE, "".join(f"{n}\n" for n in names)), (CARD_FILE, card)):
        with written_whole(folder / file, "w") as opened:
            opened.write(text)
    # of entries that share their memory, each has its own copy
    tensors = {key: value.detach().clone().contiguous() for key, value in state_dict.items()}
    with written_whole(folder / WEIGHTS_FILE, sync=True) as opened:
        opened.write(save(tensors, {"format": "pt"}))


def _plain(value: object) -> object:
    """A value as JSON has it: the numbers of NumPy and tensors of one number become Python's."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))
