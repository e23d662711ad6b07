"""UCF101 (Soomro et al., arXiv 1212.0402): 101 classes, 3 splits, flow images end in .jpg."""

from datasets.sources.frames import FrameNames

NUM_CLASSES = 101
NAMES = FrameNames(flow_suffixes=(".jpg", ""))
