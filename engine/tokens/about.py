"""about.json: what a token cache was made of and how; written with a checksum, read as a record."""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from datasets import DataError
from datasets.files import check_name, check_writable, normal_name, read_json, written_whole
from datasets.records import MOST_FRAMES, VideoRecord
from engine.data import SUBSETS

CACHE_FORMAT = 1
METADATA_FILE = "about.json"
CHECKSUM_KEY = "crc32"  # of the rest of about.json; then each video's file has a checksum, too
LATER = {  # what caches of earlier code do not say
    "data": {},
    "flow_bound": None,
    "amp": "off",
    "at": None,
    "augmentation": None,
    "numbers": "float16",
}
MOST_VIEWS = 100_000  # of a video


class _Typed(msgspec.Struct):
    """A record that is checked, not kept: about.json stays a dict."""


_Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_FRAMES)]
_Label = Annotated[int, msgspec.Meta(ge=0)]


class _Weights(_Typed):
    path: str | None
    sha256: str


class _Views(_Typed):
    train: Annotated[int, msgspec.Meta(ge=1, le=MOST_VIEWS)]
    seed: int
    clips: Literal["multi", "single"]
    crops: Annotated[int, msgspec.Meta(ge=1, le=MOST_VIEWS)]
    mirror: Literal["plain", "inverted", "none"]


class _Lists(_Typed):
    train: dict[str, int | str]
    val: dict[str, int | str]


class _About(_Typed):
    """What about.json holds, as far as it is used."""

    tokens: str
    arch: str
    frames: Annotated[int, msgspec.Meta(ge=1, le=MOST_FRAMES)]
    dataset: str
    split: Annotated[int, msgspec.Meta(ge=0)]
    class_names: Annotated[list[str], msgspec.Meta(min_length=1)]
    weights: _Weights
    views: _Views
    fingerprint: _Lists
    records: dict[Literal["train", "val"], list[tuple[str, _Count, _Label]]]
    at: str | None = None  # the stage whose input is kept; None: tokens, or what a head starts with
    amp: Literal["off", "bf16", "fp16"] = "off"
    numbers: Literal["float16", "bfloat16"] = "float16"  # of the files
    augmentation: dict[str, float | None] | None = None  # of training views; None: none
    flow_bound: float | None = None
    data: dict[str, Any] = {}


def list_digest(records: Sequence[VideoRecord]) -> dict:
    """What was read: the place for whatever tells one state of the data from another."""
    lines = "".join(f"{r.folder} {r.count} {r.label}\n" for r in records)
    return {"videos": len(records), "list_sha256": hashlib.sha256(lines.encode()).hexdigest()}


def start_cache(folder: Path, metadata: dict) -> None:
    """Writes about.json, or raises DataError if the folder holds a cache of something else.

    Raises OSError, before any work, if the folder cannot be written in.
    """
    if os.path.lexists(folder / METADATA_FILE):
        earlier = read_metadata(folder)
        different = cache_differences(earlier, metadata)
        if different:
            raise DataError(
                f"{folder} holds tokens of another kind, different in {', '.join(different)}: "
                + "; ".join(f"{key} {_short(earlier.get(key))}" for key in different)
                + "; remove that folder, or name another with --cache"
            )
    for subset in SUBSETS:
        check_writable(folder / subset)
    if not (folder / METADATA_FILE).exists():
        content = {**metadata, CHECKSUM_KEY: metadata_checksum(metadata)}
        with written_whole(folder / METADATA_FILE, "w", shared=True) as file:
            file.write(json.dumps(content, indent=1))


def metadata_checksum(metadata: dict) -> int:
    """CRC-32 of about.json's content, but for the checksum itself."""
    rest = {key: value for key, value in metadata.items() if key != CHECKSUM_KEY}
    rest = json.loads(json.dumps(rest))  # as it is when read
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def cache_differences(one: dict, other: dict) -> list[str]:
    """In what two caches are not of the same kind.

    It does not matter which head was named, nor where the weights lay; and of the data only what
    both tell of it.
    """
    free = ("arch", "weights", "data", "fingerprint", CHECKSUM_KEY)
    found = [key for key in one if key not in free]
    found = [key for key in found if one[key] != other.get(key)]
    if not same_data(one.get("data", {}), other.get("data", {})):
        found.append("data")
    if one["weights"]["sha256"] != other["weights"]["sha256"]:
        found.append("weights")
    data = (one["fingerprint"], other["fingerprint"])
    if not all(same_data(*(lists[subset] for lists in data)) for subset in SUBSETS):
        found.append("fingerprint")
    return found


def same_data(one: dict, other: dict) -> bool:
    """Whether two fingerprints agree in all that both tell."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."


def read_metadata(folder: Path) -> dict:
    """A cache's about.json; raises DataError if the folder holds none that is whole and sound."""
    path = folder / METADATA_FILE
    if not os.path.lexists(path):
        raise DataError(
            f"no token cache {folder}: there is no {path}; make it with scripts/cache_tokens.py"
        )
    metadata = read_json(path, dict[str, Any])
    number = metadata.get("format", CACHE_FORMAT)
    if number != CACHE_FORMAT:
        raise DataError(f"{path} is of format {_short(number)}, this code reads {CACHE_FORMAT}")
    try:
        about = msgspec.convert(metadata, _About)
        crc = metadata_checksum(metadata)
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}; make the cache again") from None
    if metadata.get(CHECKSUM_KEY, crc) != crc:
        raise DataError(
            f"{path} is damaged or was edited: it is not what its checksum says; make the cache "
            "again"
        )
    for subset in SUBSETS:
        _check_records(f"{path}: {subset}", about, subset)
    return LATER | metadata


def _check_records(what: str, about: _About, subset: str) -> None:
    """Raises DataError unless a subset's videos are those of its fingerprint, with known labels."""
    records = [VideoRecord(*record, "") for record in about.records.get(subset, ())]
    for number, record in enumerate(records, 1):
        check_name(normal_name(record.folder), f"{what} video {number}", nested=True)
        if record.label >= len(about.class_names):
            raise DataError(
                f"{what} video {number} has the label {record.label}, but there are "
                f"{len(about.class_names)} classes; make the cache again"
            )
    if not same_data(getattr(about.fingerprint, subset), list_digest(records)):
        raise DataError(f"{what}: its list is not the one of its checksum; make the cache again")
