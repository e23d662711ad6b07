"""Pictures of names that look like mathematics."""

import cv2
import numpy as np

from engine.plots import plot_confusion_matrix


def test_a_name_is_drawn_as_it_is(tmp_path):
    names = [r"$\frac{$", "$a$"]  # the first is no valid formula
    plot_confusion_matrix(np.eye(2, dtype=int), names, tmp_path / "new" / "matrix.png")
    assert cv2.imread(str(tmp_path / "new" / "matrix.png")) is not None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["matrix.png"]
