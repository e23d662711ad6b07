"""One video of a list, and the group of clips that its name puts it in."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

# What is refused without memory: beyond all known datasets.
MOST_LIST = 64 << 20  # bytes of a list, or of a classes.txt
MOST_CLASSES = 100_000
MOST_FRAMES = 10_000_000  # of a video
MAX_PIXELS = 64_000_000  # of an image, unless the user allows more

# Clips that belong together, which a split or a fold must not separate.
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
PATTERNS = [(what, sure, re.compile(rf"\A(?:{rule})\Z", re.I)) for what, sure, rule in RULES]


@dataclass(frozen=True)
class VideoRecord:
    """One video of a list.

    Attributes:
        folder: its frame folder, relative to the dataset's frames.
        count: number of its frames or flow images; they are numbered from 1.
        label: index of its class, from 0.
        line: where it stands, "file:line", for messages.
    """

    folder: str
    count: int
    label: int
    line: str


def group_of(folder: str, group: re.Pattern | None = None) -> tuple[str, str, str] | None:
    """(what, severity, name) of the group that a video's name puts it in, None without one.

    `group` is a pattern of the user's, searched in the file name, instead of the known ones; its
    brackets are the group, or without brackets all that it matches.
    """
    name = PurePosixPath(folder).name
    for what, severity, pattern in PATTERNS if group is None else [("group", "error", group)]:
        if match := pattern.search(name):
            # Brackets of alternatives that do not match are left out.
            return what, severity, " ".join(filter(None, match.groups())) or match[0]
    return None
