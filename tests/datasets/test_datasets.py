"""Splits: lists, class names and what is refused; items of the two datasets."""

import numpy as np
import pytest
import torch

from datasets import DataError, create_dataset
from datasets.clips import ClipDataset, VideoClips
from datasets.sampling import clip_frames, multi_clip, random_offsets
from datasets.sources.frames import FrameReader
from tests.conftest import TinyDataset
from video_transforms import (
    PLAIN,
    CenterCrop,
    Compose,
    MultiScaleCornerCrop,
    RandomHorizontalFlip,
)


@pytest.fixture
def toy(tmp_path):
    dataset = TinyDataset(tmp_path)
    for label in range(2):
        dataset.add_video(f"v{label}", label, count=40)
        dataset.add_video(f"w{label}", label, count=3)
    videos = [("v0", 40, 0), ("v1", 40, 1), ("w0", 3, 0), ("w1", 3, 1)]
    for part in ("train", "val"):
        dataset.write_lists(part, videos)
    return dataset


def split_of(toy, modality="rgb", name=None, parts=("train", "val")):
    return create_dataset(name or toy.name, 1, modality, toy.settings, toy.frames, parts)


def clips_of(toy, training, transform, segments=1, seed=0, max_bad=None) -> ClipDataset:
    split = split_of(toy)
    reader = FrameReader(split.source.root, split.source.names, "rgb", (85, 64))
    return ClipDataset(split.train, reader, 16, transform, training, segments, seed, max_bad)


def test_another_dataset_needs_no_code(toy):
    split = split_of(toy)
    assert [r.folder for r in split.train] == ["v0", "v1", "w0", "w1"]
    assert split.class_names == ["class 0", "class 1"]
    assert split.may_flip
    (toy.lists / "classes.txt").write_text("a\nb\nc\n")
    assert split_of(toy).class_names == ["a", "b", "c"]


def test_classes_count_over_both_lists(toy):
    toy.write_lists("val", [("v0", 40, 5)])
    assert len(split_of(toy, parts=("val",)).class_names) == 6
    toy.write_lists("train", [("v0", 40, 7)])
    assert len(split_of(toy, parts=("val",)).class_names) == 8


def test_labels_are_checked_against_the_classes(toy):
    (toy.lists / "classes.txt").write_text("only\n")
    with pytest.raises(DataError, match=r"train_rgb_split1.txt:2: the label of 'v1'"):
        split_of(toy)


def test_known_datasets_have_their_number_of_classes(tmp_path):
    toy = TinyDataset(tmp_path, "hmdb51")
    toy.add_video("v", 0, 5)
    toy.write_lists("val", [("v", 5, 0)])
    assert len(split_of(toy, parts=("val",)).class_names) == 51
    (toy.lists / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="names 2 classes, 'hmdb51' has 51"):
        split_of(toy, parts=("val",))


def test_missing_folders_say_so(toy, tmp_path):
    with pytest.raises(DataError, match=r"no lists for the dataset 'other'.*there: toy"):
        split_of(toy, name="other")
    with pytest.raises(DataError, match="give --frames"):
        create_dataset("toy", 1, "rgb", toy.settings, tmp_path / "absent")
    with pytest.raises(DataError, match="no list .*val_rgb_split2"):
        create_dataset("toy", 2, "rgb", toy.settings, toy.frames, ("val",))


def test_items_are_uint8_clips(toy):
    data = clips_of(toy, False, CenterCrop(56))
    clip, label = data[1]
    assert clip.shape == (1, 16, 56, 56, 3) and clip.dtype == torch.uint8
    assert label == 1
    reader = data.reader
    expected = reader.read(data.records[1], np.arange(13, 29))  # (39 - 16 + 1) // 2 = 12
    assert np.array_equal(clip[0].numpy(), CenterCrop(56)(expected))


def test_clips_read_in_parts_are_transformed_alike(toy):
    transform = Compose(MultiScaleCornerCrop(56), RandomHorizontalFlip(PLAIN))
    data = clips_of(toy, True, transform, segments=2)
    for index in range(4):  # of 40 frames, and of 3 that are repeated
        rng = np.random.default_rng((0, 0, index))
        count = data.records[index].count
        offsets = random_offsets(count, 16, 2, rng)
        numbers = np.concatenate([clip_frames(offset, count, 16) for offset in offsets])
        expected = transform(data.reader.read(data.records[index], numbers), rng)
        assert np.array_equal(data[index][0].flatten(0, 1).numpy(), expected)


def test_segments_share_their_crop(toy):
    data = clips_of(toy, True, MultiScaleCornerCrop(56), segments=2)
    clip, _ = data[2]
    assert clip.shape == (2, 16, 56, 56, 3)


def test_randomness_is_a_function_of_seed_epoch_and_index(toy):
    data = clips_of(toy, True, MultiScaleCornerCrop(56))
    first = data[0][0]
    data[1]
    assert torch.equal(data[0][0], first)
    assert torch.equal(clips_of(toy, True, MultiScaleCornerCrop(56))[0][0], first)
    data.set_epoch(1)
    assert not torch.equal(data[0][0], first)
    assert not torch.equal(clips_of(toy, True, MultiScaleCornerCrop(56), seed=1)[0][0], first)


def test_living_workers_see_the_epoch_change(toy):
    data = clips_of(toy, True, MultiScaleCornerCrop(56))
    loader = torch.utils.data.DataLoader(data, 2, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        loaded = torch.cat([clips for clips, _ in loader])
        assert torch.equal(loaded, torch.stack([data[i][0] for i in range(4)]))


def test_a_test_video_is_read_clip_by_clip(toy):
    split = split_of(toy)
    reader = FrameReader(split.source.root, split.source.names, "rgb", (85, 64))
    data = VideoClips(split.val, reader, 16, multi_clip)
    assert [data[i][:2] for i in range(len(data))] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
    ]
    for clip, wanted in enumerate(multi_clip(40, 16)):
        _, _, images, error = data[clip]
        assert error == "" and np.array_equal(images, reader.read(split.val[0], wanted))
    images = data[4][2]  # 3 frames, again and again
    assert len(images) == 16 and np.array_equal(images[:3], images[3:6])
    break_image(toy, "v0", 30)
    assert "truncated" in data[1][3] and data[0][3] == ""


def break_image(toy, folder: str, number: int) -> None:
    path = toy.frames / folder / f"img_{number:05d}.jpg"
    path.write_bytes(path.read_bytes()[:200])


def test_a_bad_video_stops_or_gives_way_to_its_nearest_neighbour(toy, capsys):
    for number in range(1, 41):
        break_image(toy, "v1", number)
    with pytest.raises(DataError, match="'v1'.*truncated"):
        clips_of(toy, False, CenterCrop(56))[1]
    data = clips_of(toy, False, CenterCrop(56), max_bad=25)
    clip, label = data[1]
    assert label == 0 and torch.equal(clip, data[0][0])  # of two as near, the earlier
    data[1]
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("warning: replaced by its neighbour") and "train_rgb_split1.txt:2" in line
    )
    assert data.bad.tolist() == [0, 1, 0, 0]
    break_image(toy, "w0", 1)
    with pytest.raises(DataError, match="2 of 4 videos are bad, more than --max-bad 25 %"):
        data[2]


def test_loader_processes_count_bad_videos_together(toy):
    for folder in ("w0", "w1"):
        break_image(toy, folder, 1)
    data = clips_of(toy, False, CenterCrop(56), max_bad=60)
    loader = torch.utils.data.DataLoader(data, 1, num_workers=2)
    assert len(list(loader)) == 4
    assert data.bad.tolist() == [0, 0, 1, 1]


def test_frames_behind_a_link_out_of_the_folder_are_refused(toy, tmp_path):
    outside = tmp_path / "elsewhere"
    (toy.frames / "v0").rename(outside)
    (toy.frames / "v0").symlink_to(outside)
    with pytest.raises(DataError, match=r"train_rgb_split1.txt:1: 'v0' is a link out of"):
        split_of(toy)
    (toy.frames / "v0").unlink()
    (toy.frames / "v0").symlink_to(toy.frames / "v1")
    assert len(split_of(toy).train) == 4


def test_no_memory_names_the_video(toy):
    class Greedy(FrameReader):
        def write(self, record, numbers, slots):
            raise MemoryError

    split = split_of(toy)
    reader = Greedy(split.source.root, split.source.names, "rgb", (85, 64))
    with pytest.raises(MemoryError, match="split1.txt:2: 'v1': no memory for a clip"):
        ClipDataset(split.train, reader, 16, CenterCrop(56), True, max_bad=50)[1]
    error = VideoClips(split.val, reader, 16, multi_clip)[0][3]
    assert "'v0': no memory for a clip; use fewer --workers" in error
