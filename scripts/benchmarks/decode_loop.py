"""The loader benchmark's bare decode loop: decodes the given JPEG files for each line on stdin.

Prints the processor seconds of each turn. A program of its own that loads nothing but OpenCV: what
else a process has loaded changes how its C library gives memory back, and with it the result.
"""

import sys
import time

import cv2
import numpy as np

images = [np.fromfile(path, np.uint8) for path in sys.argv[1:]]
for _ in sys.stdin:
    start = time.process_time()
    for data in images:
        cv2.imdecode(data, cv2.IMREAD_COLOR)
    print(time.process_time() - start, flush=True)
