"""Classifies a video with an exported network; needs numpy, av and onnxruntime, nothing else.

python run_onnx.py NETWORK.onnx VIDEO [K]
"""

import json
import sys

import av
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
properties = session.get_modelmeta().custom_metadata_map
network = {key: json.loads(properties[key]) for key in ("classes", "input", "frame_rate", "flow")}
if network["flow"]:
    sys.exit(f"{sys.argv[1]} takes optical flow images: {network['flow']}")

with av.open(sys.argv[2]) as video:
    stream = video.streams.video[0]
    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    rate = float(stream.average_rate or 0)
if rate and network["frame_rate"] and abs(rate / network["frame_rate"] - 1) > 0.02:
    step = rate / network["frame_rate"]  # what is shown at the network's frame rate
    frames = [frames[int(place)] for place in np.arange(0, len(frames), step)]

# the clip in the middle; a video that is shorter begins again
length = network["input"]["frames"]
places = (max(0, (len(frames) - length) // 2) + np.arange(length)) % len(frames)
clip = np.stack([frames[place] for place in places])[None]  # uint8 (1, T, H, W, 3)
(probabilities,) = session.run(["probabilities"], {"frames": clip})[0]

for label in np.argsort(-probabilities)[: int(sys.argv[3]) if len(sys.argv) > 3 else 5]:
    print(f"{probabilities[label]:.4f}  {network['classes'][label]}")
