"""Groups of clips that are on both sides of a split."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from datasets.doctor.findings import Finding
from datasets.doctor.lists import PART_NAMES, VideoList
from datasets.grouping import group_of


def check_groups(lists: Sequence[VideoList], group: re.Pattern | None = None) -> Iterator[Finding]:
    """Groups on both sides of a split; the findings name the videos of the smaller side."""
    for split in sorted({entry.split for entry in lists}):
        groups: dict[tuple, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        for entry in lists:
            for record in entry.records if entry.split == split else ():
                key = group_of(record.folder, group)
                if key is not None:
                    groups[key][entry.part][record.folder] = None
        for (what, severity, name), parts in groups.items():
            # A video in both is another finding.
            train = [video for video in parts["train"] if video not in parts["val"]]
            val = [video for video in parts["val"] if video not in parts["train"]]
            few, many, part = (
                (train, val, "train") if len(train) < len(val) else (val, train, "val")
            )
            for video in few if many else ():
                yield Finding(
                    severity,
                    "group-split",
                    video,
                    f"'{video}' is a {PART_NAMES[part]} video of split {split}, and '{many[0]}' of "
                    f"the same {what} '{name}' is on the other side",
                    "split whole groups: prepare_videos.py --group REGEX, or --train and --val "
                    "with patterns that keep them together",
                )
