"""about.json that is damaged, hostile or says nonsense: refused in words, fast."""

import copy
import json
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given

from datasets import DataError
from engine.config import DataConfig
from engine.tokens.about import list_digest, read_metadata
from engine.tokens.cache import open_cache
from engine.tokens.dataset import cached_split, find_cache, open_cached_split
from models import get_arch
from tests.conftest import ROOT
from tests.engine.tokens.test_hostile_caches import ARCH, EARLIER, GOOD, hostile, refused_in_words
from tests.mutations import mutated


def changed(**entries) -> str:
    return json.dumps(GOOD | entries)


def with_record(record: list) -> str:
    """The first training video is another one, and the list's digest is right."""
    about = copy.deepcopy(GOOD)
    about["records"]["train"][0] = record
    return json.dumps(about)


NO_VIDEOS = {"train": list_digest([]), "val": GOOD["fingerprint"]["val"]}
ABOUTS = {
    "no weights": (json.dumps({k: v for k, v in GOOD.items() if k != "weights"}), "weights"),
    "weights null": (changed(weights=None), "cannot read .*weights"),
    "no records": (changed(records={}), "train: its list is not the one of its checksum"),
    "empty records": (
        changed(records={**GOOD["records"], "train": []}, fingerprint=NO_VIDEOS),
        "holds no videos of 'train'",
    ),
    "label 99": (with_record(["train_0_0", 18, 99]), "train video 1 has the label 99, but .* 3"),
    "label -1": (with_record(["train_0_0", 18, -1]), "cannot read .*>= 0"),
    "count 1e12": (with_record(["train_0_0", 10**12, 0]), "cannot read .*<= "),
    "count 0": (with_record(["train_0_0", 0, 0]), "cannot read .*>= 1"),
    "count 18.5": (with_record(["train_0_0", 18.5, 0]), "cannot read .*int"),
    "other count": (with_record(["train_0_0", 19, 0]), "list is not the one of its checksum"),
    "other label": (with_record(["train_0_0", 18, 1]), "list is not the one of its checksum"),
    "outside": (with_record(["../../x", 18, 0]), "train video 1 '../../x'.*rename it"),
    "no fingerprint": (changed(fingerprint={}), "cannot read .*train"),
    "half a fingerprint": (changed(fingerprint={"train": {}}), "cannot read .*val"),
    "no classes": (changed(class_names=[]), "cannot read .*class_names"),
    "frames 0": (changed(frames=0), "cannot read .*frames"),
    "crops 1e9": (changed(views=GOOD["views"] | {"crops": 10**9}), "cannot read .*crops"),
    "nested": (changed(data=0).replace('"data": 0', '"data": ' + "[" * 100_000), "cannot read"),
    "long number": (changed(data=0).replace('"data": 0', '"x": ' + "9" * 5000), "cannot read"),
    "NaN": (changed(flow_bound=float("nan")), "cannot read"),
    "checksum": (changed(crc32=0), "damaged or was edited"),
}


@pytest.mark.parametrize("kind", ABOUTS)
def test_an_about_file_that_says_nonsense_is_refused(tmp_path, kind):
    content, message = ABOUTS[kind]
    folder = Path(shutil.copytree(EARLIER, tmp_path / "c"))
    (folder / "about.json").write_text(content)
    start = time.monotonic()
    with pytest.raises(DataError, match=message) as error:
        open_cache(folder)
    assert time.monotonic() - start < 1 and len(str(error.value)) < 1000


def test_a_video_of_more_clips_than_memory_holds_is_refused(tmp_path):
    folder = Path(shutil.copytree(EARLIER, tmp_path / "c"))
    about = GOOD | {"frames": 1, "views": GOOD["views"] | {"clips": "multi"}}
    about["records"] = {"train": [], "val": [["x", 10_000_000, 0]]}
    about["fingerprint"] = {"train": {}, "val": {}}
    (folder / "about.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="val video 1: 10000000 frames are more than 100000 clips"):
        open_cache(folder, ("val",))


def test_an_about_file_that_is_not_utf_8_is_refused(tmp_path):
    for content in (b"\xff" + changed().encode(), changed().encode("utf-16"), b"\x00"):
        (tmp_path / "about.json").write_bytes(content)
        with pytest.raises(DataError, match="cannot read .*about.json"):
            read_metadata(tmp_path)


@pytest.mark.parametrize("depths", [range(100, 900, 100), range(900, 1000)])
def test_no_depth_of_nesting_is_an_error_of_pythons(tmp_path, depths):
    for depth in depths:
        nested = '"data": {"a": ' + "[" * depth + "]" * depth + "}"
        (tmp_path / "about.json").write_text(changed(data=0).replace('"data": 0', nested))
        refused_in_words(read_metadata, tmp_path)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path_factory.mktemp("damaged") / "c"))


SETTINGS = ROOT / "tests" / "earlier_files" / "settings"
PACKS = ROOT / "tests" / "earlier_files" / "packs"


@hostile
@given(content=mutated((EARLIER / "about.json").read_bytes()))
def test_any_damaged_about_file_is_read_or_refused(damaged, content):
    """All that a training or a test on the cache looks at, with lists and frames and without."""

    def use(folder: Path) -> None:
        spec = get_arch(ARCH)
        data = DataConfig("toy", settings=SETTINGS, frames=PACKS)
        cache = find_cache(folder, data, spec)
        open_cached_split(data, spec, cache)
        cached_split(cache)

    (damaged / "about.json").write_bytes(content)
    try:
        refused_in_words(use, damaged)
    finally:
        shutil.copy(EARLIER / "about.json", damaged)
