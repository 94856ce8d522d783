"""Trains in a process of its own, and tells its peak memory with two batch sizes.

Run by `test_memory.py`: `python -m benchmarks.peak_memory CASE`, a case as JSON.
"""

import json
import pathlib
import sys
import time

import keras
import numpy as np

import keras_bit

CLASSES = 10
STEPS = 3


def peak():
    """Bytes that lay in memory at most: of this process alone, unlike `ru_maxrss`."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def train(model, edge, count):
    """Returns the seconds of the quickest step."""
    rng = np.random.default_rng(0)
    images = rng.random((count, edge, edge, 3), np.float32)
    labels = np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=count)]
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(depth, width, dtype, edge, remat, batches):
    """Peaks in bytes and seconds of a step, both by batch size; `batches` must ascend."""
    backbone = keras_bit.BiTBackbone(
        tuple(depth) if isinstance(depth, list) else depth, width, remat=remat, dtype=dtype
    )
    model = keras_bit.BiTClassifier(backbone, CLASSES)
    model.compile(
        keras.optimizers.SGD(0.003, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    seconds, peaks = [], []
    for count in batches:
        seconds.append(train(model, edge, count))
        peaks.append(peak())
    return {"peaks": peaks, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
