"""What a network was trained on, in a few plain values: to be stored, compared, and told apart.

Two data sets that differ in a frame count, a list line, a frame size or a JPEG quality have
different fingerprints, and `compare_fingerprints` says in words what it is.
"""

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from datasets.files import DataError
from datasets.lists import SUBSET_NAMES
from datasets.records import VideoRecord
from datasets.sampling import spread
from datasets.sources.choose import Source, Split
from datasets.sources.facts import OTHER_RATE
from datasets.sources.jpeg import QUALITY_TOLERANCE
from datasets.sources.reader import read_header
from datasets.specs import unnamed_classes

SAMPLED = 32  # videos of a list whose image headers are read
# the settings of a preparation that RGB depends on
OF_FRAMES = ("width", "height", "quality", "resampled")


def fingerprint(split: Split) -> dict:
    """The fingerprint of a split's lists and frames: dicts, lists, strings and numbers.

    Keys: `hash` of all others but `fps`, which earlier files lack; `dataset`, `split`,
    `modality`; `classes`; `preparation`, the record of it or None; `fps`, frames per second, the
    usual rate of the videos, where it is known; `images_as`, how a pack or video files changed
    them; `lists` and `images`, each subset -> what is below.
    """
    listed = {name: records for name in SUBSET_NAMES if (records := getattr(split, name))}
    content = {
        "dataset": split.dataset,
        "split": split.number,
        "modality": split.modality,
        "classes": list(split.class_names),
        "preparation": _preparation(split),
        "images_as": split.source.altered(),
        "lists": {name: describe_list(records) for name, records in listed.items()},
        "images": {
            name: describe_images(records, split.source) for name, records in listed.items()
        },
    }
    text = json.dumps(content, sort_keys=True)
    fps = split.source.fps(split.train or split.val)
    known = {"fps": fps} if fps else {}
    return {"hash": sha256(text.encode()).hexdigest()[:12]} | content | known


def _preparation(split: Split) -> dict | None:
    """How the modality's images were made, where that is recorded."""
    preparation = split.source.preparation()
    if preparation is None:
        return None
    settings = preparation.settings()
    if split.modality == "flow":
        return settings
    return {key: settings[key] for key in OF_FRAMES if key in settings}


def describe_list(records: Sequence[VideoRecord]) -> dict:
    """`videos`: a number that stands for folder and label of each; `counts`: of their images.

    The number is 48 bits of a hash: 5,000 videos share one by chance in 1 of 20 million lists.
    """
    digests = [sha256(f"{record.folder} {record.label}".encode()).digest() for record in records]
    return {
        "videos": [int.from_bytes(digest[:6]) for digest in digests],
        "counts": [record.count for record in records],
    }


def describe_images(records: Sequence[VideoRecord], source: Source) -> dict:
    """The sizes, "WxH", and the median JPEG quality (or None) of some videos' first images."""
    headers = []
    for record in spread(records, SAMPLED):
        for path in source.names.find(source.root / record.folder, source.modality, 1)[:1]:
            try:
                headers.append(read_header(path))
            except DataError:
                continue  # whoever reads it will say so
    qualities = sorted(header.quality for header in headers if header.quality)
    return {
        "sizes": sorted({f"{header.size[0]}x{header.size[1]}" for header in headers}),
        "quality": qualities[len(qualities) // 2] if qualities else None,
    }


def describe(of: dict) -> str:
    """One line for people."""
    words = [f"data {of['hash']}: {of['dataset']} split {of['split']} {of['modality']}"]
    words += [
        f"{len(listed['videos'])} {SUBSET_NAMES[subset]} videos ({sum(listed['counts'])} images)"
        for subset, listed in of["lists"].items()
    ]
    words.append(f"{len(of['classes'])} classes")
    sizes = sorted({size for seen in of["images"].values() for size in seen["sizes"]})
    words += sizes[:3] + ["..."] * (len(sizes) > 3)
    words += [f"{of['fps']:g} frames a second"] if of.get("fps") else []
    qualities = sorted({seen["quality"] for seen in of["images"].values()} - {None})
    words += [f"JPEG quality {quality}" for quality in qualities]
    recorded = of["preparation"] or {}
    words += [f"{key} {recorded[key]}" for key in ("flow", "bound") if key in recorded]
    return ", ".join(words)


def compare_fingerprints(
    there: dict, here: dict, subsets: Sequence[str] = tuple(SUBSET_NAMES)
) -> list[str]:
    """What differs between two fingerprints, in words; nothing where one does not say.

    `subsets` are the lists that matter. Lists of different splits or datasets are not compared.
    """
    found = _preparations(there.get("preparation"), here.get("preparation"))
    rates = [side.get("fps") for side in (there, here)]
    if all(rates) and abs(rates[0] / rates[1] - 1) > OTHER_RATE:
        found.append(f"frame rate of the videos: {rates[0]:g} there, {rates[1]:g} here")
    images = [side.get("images_as") or "as extracted" for side in (there, here)]
    if images[0] != images[1]:
        found.append(f"images: {images[0]} there, {images[1]} here")
    classes = [side.get("classes", []) for side in (there, here)]
    named = all(names and names != unnamed_classes(len(names)) for names in classes)
    if named and classes[0] != classes[1]:
        found.append("the class list differs")
    same_split = all(there.get(key) == here.get(key) for key in ("dataset", "split"))
    recorded = there.get("preparation") and here.get("preparation")
    for subset in subsets:
        lists = [side.get("lists", {}).get(subset) for side in (there, here)]
        images = [side.get("images", {}).get(subset) for side in (there, here)]
        if all(lists) and same_split:
            found += _lists(SUBSET_NAMES[subset], *lists)
        if all(images) and not recorded:
            found += _images(SUBSET_NAMES[subset], *images)
    return found


def _preparations(there: dict | None, here: dict | None) -> list[str]:
    if there is None or here is None:
        if there is here:
            return []
        return [f"preparation: recorded only {'here' if there is None else 'there'}"]
    return [
        f"preparation: {key} {there.get(key, 'not recorded')} there, "
        f"{here.get(key, 'not recorded')} here"
        for key in there | here
        if there.get(key) != here.get(key)
    ]


def _lists(subset: str, there: dict, here: dict) -> list[str]:
    a, b = Counter(there["videos"]), Counter(here["videos"])
    missing, added = sum((a - b).values()), sum((b - a).values())
    if missing or added:
        return [f"{subset} list: {missing} only there, {added} only here, of {b.total()} videos"]
    counts = [dict(zip(side["videos"], side["counts"], strict=True)) for side in (there, here)]
    changed = sum(counts[0][video] != counts[1][video] for video in counts[0])
    if changed:
        return [f"{subset} list: the counts of {changed} of {len(counts[0])} videos differ"]
    return []


def _images(subset: str, there: dict, here: dict) -> list[str]:
    found = []
    a, b = there["sizes"], here["sizes"]
    # Which of many sizes are seen depends on the list.
    if a != b and a and b and min(len(a), len(b)) == 1:
        found.append(f"{subset} frame size: {', '.join(a)} there, {', '.join(b)} here")
    a, b = there["quality"], here["quality"]
    if None not in (a, b) and abs(a - b) > QUALITY_TOLERANCE:
        found.append(f"{subset} JPEG quality: {a} there, {b} here")
    return found
