"""Which process has which videos, and padding on its way to a loader process."""

import pickle

import torch
from torch.utils.data import DataLoader

from datasets.clips import IGNORED, ClipDataset
from datasets.records import VideoRecord
from datasets.samplers import Padding, TrainingBatches
from datasets.sources.folders import FrameNames
from datasets.sources.frames import FrameReader
from tests.conftest import TinyDataset


def test_a_process_without_videos_gets_padding():
    shares = [list(TrainingBatches(5, 1, 0, rank, 4)) for rank in range(4)]
    last = [share[-1] for share in shares]
    real = [index for batch in last for index in batch if not isinstance(index, Padding)]
    padding = [index for batch in last for index in batch if isinstance(index, Padding)]
    assert len(real) == 1 and padding == real * 3
    assert sorted(i for share in shares for (i,) in share if not isinstance(i, Padding)) == [
        *range(5)
    ]


def test_padding_survives_the_way_to_a_loader_process(tmp_path):
    assert isinstance(pickle.loads(pickle.dumps([Padding(3)]))[0], Padding)
    toy = TinyDataset(tmp_path)
    toy.add_video("v", 1, 4)
    reader = FrameReader(toy.frames, FrameNames(), "rgb", (64, 48))
    records = [VideoRecord("v", 4, 1, "list:1")]
    data = ClipDataset(records, reader, 4, lambda images, rng: images, training=False)
    for workers in (0, 1):
        loader = DataLoader(data, batch_sampler=[[0], [Padding(0)]], num_workers=workers)
        (clip, label), (padded, ignored) = loader
        assert label.tolist() == [1] and ignored.tolist() == [IGNORED]
        assert torch.equal(clip, padded)
