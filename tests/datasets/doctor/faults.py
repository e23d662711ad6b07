"""Faults to plant in a dataset of prepared frames, one kind each, each in a video of its own.

A fault takes a `Patient` and a video (a training video of class 0 unless it says otherwise) and
returns what the doctor has to find: (kind, video).
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.flow.engines import decode_flow, encode_flow

FAULTS: list[Callable] = []


@dataclass
class Patient:
    """A dataset whose lists (of split 1) and frames may be damaged."""

    lists: Path
    frames: Path

    def edit(self, modality: str, old: str, new: str | None, part: str = "train") -> None:
        """Replaces a video's line; `old` is its folder, `{}` in `new` its count."""
        path = self.lists / f"{part}_{modality}_split1.txt"
        lines = []
        for line in path.read_text().splitlines():
            folder, count, label = line.rsplit(" ", 2)
            if folder == old:
                line = new and new.format(folder=folder, count=int(count), label=label)
            lines += [line] if line else []
        path.write_text("\n".join(lines) + "\n")

    def add(self, modality: str, line: str, part: str) -> None:
        with open(self.lists / f"{part}_{modality}_split1.txt", "a") as file:
            file.write(line + "\n")

    def line(self, modality: str, video: str, part: str = "train") -> str:
        text = (self.lists / f"{part}_{modality}_split1.txt").read_text()
        return next(x for x in text.splitlines() if x.rsplit(" ", 2)[0] == video)

    def files(self, video: str, pattern: str) -> list[Path]:
        found = sorted((self.frames / video).glob(pattern))
        assert found
        return found

    def rewrite(self, video: str, pattern: str, change: Callable, quality: int = 95) -> None:
        """Saves a video's images again, changed."""
        for path in self.files(video, pattern):
            image = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])

    def flow(self, video: str) -> Iterator[tuple[Path, Path]]:
        return zip(self.files(video, "flow_x*"), self.files(video, "flow_y*"), strict=True)


def fault(plant: Callable) -> Callable:
    FAULTS.append(plant)
    return plant


@fault
def folder_missing(patient, video):
    shutil.rmtree(patient.frames / video)
    return "no-folder", video


@fault
def in_no_list(patient, video):
    for modality in ("rgb", "flow"):
        patient.edit(modality, video, None)
    return "not-listed", video


@fault
def count_above(patient, video):
    count = int(patient.line("rgb", video).split()[-2]) + 3
    patient.edit("rgb", video, f"{{folder}} {count} {{label}}")
    return "count-above", video


@fault
def count_below(patient, video):
    count = int(patient.line("flow", video).split()[-2]) - 3
    patient.edit("flow", video, f"{{folder}} {count} {{label}}")
    return "count-below", video


@fault
def gap(patient, video):
    patient.files(video, "img_*")[4].unlink()
    return "gap", video


@fault
def gap_in_flow(patient, video):
    for pattern in ("flow_x*", "flow_y*"):
        patient.files(video, pattern)[0].unlink()
    return "gap", video


@fault
def numbered_from_zero(patient, video):
    for number, path in enumerate(patient.files(video, "img_*")):
        path.rename(path.with_name(f"img_{number:05d}.jpg"))
    return "from-zero", video


@fault
def flow_too_short(patient, video):
    for pattern in ("flow_x*", "flow_y*"):
        patient.files(video, pattern)[-1].unlink()
    count = int(patient.line("flow", video).split()[-2]) - 1
    patient.edit("flow", video, f"{{folder}} {count} {{label}}")
    return "flow-count", video


@fault
def more_x_than_y(patient, video):
    patient.files(video, "flow_y*")[-1].unlink()
    return "x-y", video


@fault
def truncated(patient, video):
    path = patient.files(video, "img_*")[3]
    path.write_bytes(path.read_bytes()[:-300])
    return "unreadable", video


@fault
def no_image(patient, video):
    patient.files(video, "flow_y*")[2].write_bytes(b"")
    return "unreadable", video


@fault
def data_end_inside(patient, video):
    path = patient.files(video, "img_*")[5]
    data = bytearray(path.read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 40] = b"\xff\xd0" * 20  # restart markers where none belong
    path.write_bytes(bytes(data))
    return "unreadable", video


@fault
def smaller(patient, video):
    patient.rewrite(video, "img_*", lambda image: cv2.resize(image, None, fx=0.5, fy=0.5))
    return "size", video


@fault
def another_aspect(patient, video):
    patient.rewrite(video, "flow_*", lambda image: cv2.resize(image, image.shape[:1] * 2))
    return "aspect", video


@fault
def one_image_larger(patient, video):
    name = patient.files(video, "img_*")[2].name
    patient.rewrite(video, name, lambda image: cv2.resize(image, None, fx=2, fy=2))
    return "sizes-mixed", video


@fault
def x_larger_than_y(patient, video):
    patient.rewrite(video, "flow_x*", lambda image: cv2.resize(image, None, fx=2, fy=2))
    return "x-y-size", video


@fault
def low_quality(patient, video):
    patient.rewrite(video, "img_*", lambda image: image, quality=60)
    return "quality", video


@fault
def label_too_large(patient, video):
    for modality in ("rgb", "flow"):
        patient.edit(modality, video, "{folder} {count} 99")
    return "label-range", video


@fault
def two_labels(patient, video):
    other = 0 if patient.line("flow", video).endswith(" 1") else 1
    patient.edit("flow", video, f"{{folder}} {{count}} {other}")
    return "two-labels", video


@fault
def class_without_videos(patient, video):
    path = patient.lists / "classes.txt"
    path.write_text(path.read_text() + "nothing\n")
    return "label-unused", ""


@fault
def in_train_and_test(patient, video):
    for modality in ("rgb", "flow"):
        patient.add(modality, patient.line(modality, video), "val")
    return "train-and-test", video


@fault
def group_split(patient, video):
    """Moves one test video to training; its group stays where it was."""
    test = (patient.lists / "val_rgb_split1.txt").read_text().splitlines()[0].rsplit(" ", 2)[0]
    for modality in ("rgb", "flow"):
        patient.add(modality, patient.line(modality, test, "val"), "train")
        patient.edit(modality, test, None, "val")
    return "group-split", test


@fault
def listed_twice(patient, video):
    patient.add("rgb", patient.line("rgb", video), "train")
    return "listed-twice", video


@fault
def in_one_list_only(patient, video):
    patient.edit("flow", video, None)
    return "one-modality", video


@fault
def bad_line(patient, video):
    patient.edit("rgb", video, "{folder} many {label}")
    return "bad-line", video


@fault
def copy_saved_again(patient, video):
    copy = f"{Path(video).parent}/copied"
    shutil.copytree(patient.frames / video, patient.frames / copy)
    patient.rewrite(copy, "img_*", lambda image: image, quality=93)
    for modality in ("rgb", "flow"):
        patient.add(modality, patient.line(modality, video).replace(video, copy), "val")
    return "duplicate", copy


@fault
def flow_constant(patient, video):
    patient.rewrite(video, "flow_*", lambda image: np.full_like(image, 128))
    return "flow-constant", video


@fault
def flow_off_centre(patient, video):
    patient.rewrite(video, "flow_x*", lambda image: cv2.add(image, 12))
    return "flow-centre", video


@fault
def flow_normalised(patient, video):
    patient.rewrite(
        video, "flow_*", lambda image: cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    )
    return "flow-normalised", video


@fault
def flow_of_half_the_bound(patient, video):
    patient.rewrite(video, "flow_*", lambda image: encode_flow(decode_flow(image, 20), 10))
    return "flow-bound", video


@fault
def flow_backwards(patient, video):
    patient.rewrite(video, "flow_*", lambda image: 255 - image)
    return "flow-inverted", video


@fault
def flow_swapped(patient, video):
    for x, y in patient.flow(video):
        other = x.with_name("other")
        x.rename(other)
        y.rename(x)
        other.rename(y)
    return "flow-swapped", video


@fault
def flow_of_something_else(patient, video):
    rng = np.random.default_rng(0)
    for path in patient.files(video, "flow_*"):
        height, width = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).shape
        noise = rng.normal(128, 20, (height // 8, width // 8)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(noise, (width, height)))
    return "flow-unrelated", video


@fault
def bytes_left_over(patient, video):
    path = patient.files(video, "img_*")[5]
    path.write_bytes(path.read_bytes()[:-2] + bytes(20) + b"\xff\xd9")
    return "damaged", video


@fault
def flow_in_colour(patient, video):
    patient.rewrite(video, "flow_x*", lambda image: cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    return "flow-colour", video
