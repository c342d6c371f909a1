#!/usr/bin/env python3
"""Makes golden.json beside it: inputs as PyPI's magika 1.0.3 makes them, outputs of onnxruntime, in the Open Inference Protocol.

Usage: make_golden.py MODEL_FOLDER, in an environment with magika. The labels and scores that it prints are the package's and the graph's."""
import json
import pathlib
import sys

import numpy as np
import onnxruntime
from magika import Magika
folder = sys.argv[1]
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
texts = {
    "python": b"import sys\n\n\ndef main():\n    for line in sys.stdin:\n        print(line.strip().upper())\n\n\nif __name__ == \"__main__\":\n    main()\n",
    "jsonl": b'{"name": "minilm", "layers": 6, "heads": 12, "vocabulary": [1, 2, 3]}\n',
}
cases = []

def features(content):
    beg, end = list(content.lstrip()[:1024]), list(content.rstrip()[-1024:])
    return beg + [256] * (2048 - len(beg) - len(end)) + end

m = Magika()
labels = json.load(open(folder + "/config.min.json"))["target_labels_space"]
for label, text in texts.items():
    x = np.array([features(text)], dtype=np.int32)
    (y,) = session.run(["target_label"], {"bytes": x})
    r = m.identify_bytes(text)
    print(label, r.output.label, r.score, labels[int(y[0].argmax())], float(y[0].max()), y.shape)
    cases.append({
        "inputs": [{"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": x[0].tolist()}],
        "outputs": [{"name": "target_label", "datatype": "FP32", "shape": [1, y.shape[1]], "data": [float(f"{v:.7g}") for v in y[0]]}],
    })
json.dump({"cases": cases}, open(pathlib.Path(__file__).with_name("golden.json"), "w"), separators=(",", ":"))
