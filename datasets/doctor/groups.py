"""Clips that belong together, read off their names: a group must not be split by a split."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from datasets.doctor.findings import Finding
from datasets.doctor.lists import PART_NAMES, VideoList

# What it is, how certain, and a pattern whose brackets are the group. The first that fits counts.
RULES = [
    # HMDB51: <source>_<class>_<body>_<camera>_np<people>_<viewpoint>_<quality>_<number>. Two
    # recordings may bear the same title, so this one only warns.
    ("source", "warning", r"(.+)_[fluh]_[cn]m_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+"),
    # UT-Interaction: set<set>_<number>_<sequence>_<label>
    ("sequence", "error", r"(set\d+)_\d+_(\d+)_\d+"),
    ("sequence", "error", r"(.*?(?:seq|sequence)[_-]?\d+)(?:[_-].*)?"),
    # UCF101: v_<class>_g<group>_c<clip>
    ("group", "error", r"(.*?_g\d+)_.*"),
]
PATTERNS = [(what, severity, re.compile(rule, re.IGNORECASE)) for what, severity, rule in RULES]


def group_of(folder: str, group: re.Pattern | None = None) -> tuple[str, str, str] | None:
    """(what, severity, name) of the group that a video's name puts it in, None without one.

    `group` is a pattern of the user's, searched in the name, instead of the known ones.
    """
    name = PurePosixPath(folder).name
    if group is not None:
        match = group.search(name)
        return ("group", "error", " ".join(match.groups()) or match[0]) if match else None
    for what, severity, pattern in PATTERNS:
        match = pattern.fullmatch(name)
        if match:
            return what, severity, " ".join(match.groups())
    return None


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
