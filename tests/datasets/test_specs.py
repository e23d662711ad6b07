"""Lists compared with a dataset's published ones."""

import hashlib
import re

import pytest

from datasets import create_dataset, describe_published, hmdb51
from datasets.doctor import check_lists, open_checked
from datasets.records import VideoRecord
from datasets.specs import DATASETS, DatasetSpec, compare_with_published, list_hash
from scripts.data import make_lists
from tests.conftest import TinyDataset

VIDEOS = [("a/v1", 0), ("v2", 1), ("a/v3", 1)]


def records(videos) -> list[VideoRecord]:
    return [VideoRecord(folder, 9, label, "list:1") for folder, label in videos]


@pytest.fixture
def spec() -> DatasetSpec:
    return DatasetSpec(published={(1, "train"): (3, list_hash(VIDEOS)), (1, "val"): (1, "0" * 64)})


def test_the_facts_of_hmdb51_are_six_different_hashes():
    published = DATASETS["hmdb51"].published
    assert published == hmdb51.PUBLISHED_LISTS
    assert sorted(published) == [(k, subset) for k in (1, 2, 3) for subset in ("train", "val")]
    hashes = {fact for _, fact in published.values()}
    assert len(hashes) == 6 and all(re.fullmatch("[0-9a-f]{64}", fact) for fact in hashes)
    assert {key[1]: number for key, (number, _) in published.items()} == {
        "train": 3570,
        "val": 1530,
    }


def test_a_hash_is_that_of_names_and_labels_in_any_order():
    assert list_hash([("v2", 1), ("v3", 1), ("b/v1", 0)]) == list_hash(VIDEOS)
    assert list_hash(VIDEOS) == hashlib.sha256(b"v1 0\nv2 1\nv3 1\n").hexdigest()


def test_what_differs_is_said(spec):
    assert compare_with_published(spec, 1, "train", records(VIDEOS)) == (
        True,
        "split 1 train: 3 videos, the published list",
    )
    missing = compare_with_published(spec, 1, "train", records(VIDEOS[:2]))
    assert missing == (False, "split 1 train: 2 videos, not the published list of 3")
    relabelled = compare_with_published(spec, 1, "train", records([*VIDEOS[:2], ("a/v3", 0)]))
    assert not relabelled[0] and "3 videos, as many as in the published" in relabelled[1]
    assert "but other folders or labels" in relabelled[1]
    assert compare_with_published(spec, 1, "val", records(VIDEOS[:1]))[1].startswith("split 1 test")
    assert compare_with_published(spec, 2, "train", records(VIDEOS)) is None
    assert compare_with_published(DatasetSpec(), 1, "train", records(VIDEOS)) is None


def test_thousands_are_set_apart():
    videos = [(f"v{number}", 0) for number in range(1530)]
    spec = DatasetSpec(published={(3, "val"): (1530, list_hash(videos))})
    assert compare_with_published(spec, 3, "val", records(videos)) == (
        True,
        "split 3 test: 1,530 videos, the published list",
    )


def test_trainings_and_the_doctor_say_it(spec, tmp_path, monkeypatch):
    toy = TinyDataset(tmp_path)
    for folder, label in VIDEOS:
        toy.add_video(folder, label, 4)
    toy.write_lists("train", [(folder, 4, label) for folder, label in VIDEOS])
    toy.write_lists("val", [("v2", 4, 1)])
    places = (toy.settings, toy.frames)
    assert describe_published(create_dataset("toy", 1, "flow", *places)) == []
    monkeypatch.setitem(DATASETS, "toy", spec)
    for modality in ("rgb", "flow"):
        assert describe_published(create_dataset("toy", 1, modality, *places)) == [
            "split 1 train: 3 videos, the published list",
            "split 1 test: 1 videos, as many as in the published list, but other folders or labels",
        ]
    assert len(describe_published(create_dataset("toy", 1, "rgb", *places, ("val",)))) == 1
    found = [f for f in check_lists(open_checked("toy", *places)) if f.kind == "published-list"]
    assert [finding.severity for finding in found] == ["warning", "warning", "info", "info"]
    assert "val_flow_split1.txt: split 1 test" in found[0].message + found[1].message


def test_make_lists_compares_what_it_writes(tmp_path, monkeypatch, capsys):
    official = tmp_path / "official"
    official.mkdir()
    (official / "wave_test_split1.txt").write_text("w0.avi 1\nw1.avi 2\nw2.avi 0\n")
    toy = TinyDataset(tmp_path, "hmdb51")
    for number in range(3):
        toy.add_video(f"wave/w{number}", 0, 3, flow_suffix="")
    published = {(1, "train"): (1, list_hash([("w0", 0)])), (1, "val"): (1530, "0" * 64)}
    monkeypatch.setitem(DATASETS, "hmdb51", DatasetSpec(published=published))
    argv = ["hmdb51", str(official), "--frames", str(toy.frames), "--settings", str(toy.settings)]
    assert make_lists.main(argv) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed.count("  split 1 train: 1 videos, the published list") == 2
    assert printed.count("  split 1 test: 1 videos, not the published list of 1,530") == 2
