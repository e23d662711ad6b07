"""HMDB51 (Kuehne et al., ICCV 2011): 51 classes, 3 splits, flow images without an extension."""

from datasets.sources.frames import FrameNames

NUM_CLASSES = 51
NAMES = FrameNames(flow_suffixes=("", ".jpg"))
