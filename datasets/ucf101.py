"""UCF101 (Soomro et al., arXiv 1212.0402): 101 classes, 3 splits, flow images end in .jpg."""

NUM_CLASSES = 101
FLOW_SUFFIXES = (".jpg", "")
