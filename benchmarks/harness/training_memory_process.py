"""Trains in a process of its own, and tells the peak of its memory.

Run by the suite of training memory: `python -m benchmarks.harness.training_memory_process CASE`,
a case as JSON.
"""

import json
import pathlib
import sys
import time

import keras
import numpy as np

import keras_bit
from benchmarks.harness.memory import memory

CLASSES = 10
STEPS = 2
# Memory that is freed goes back to the system at once, so that the peak is that of what is in use:
# TensorFlow's own allocator keeps it, and so does glibc below a threshold.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}


def forget_peak():
    """Resets the peak: tracing and TensorFlow's optimization of the graph are over."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def measure(depth, width, dtype, edge, remat, batch):
    """Peak in bytes, and seconds of the quickest step."""
    depth = tuple(depth) if isinstance(depth, list) else depth
    backbone = keras_bit.BiTBackbone(depth, width, remat=remat, dtype=dtype)
    model = keras_bit.BiTClassifier(backbone, CLASSES)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.003, momentum=0.9), loss, jit_compile=False)
    rng = np.random.default_rng(0)
    images = rng.random((batch, edge, edge, 3), np.float32)
    labels = np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=batch)]
    model.train_on_batch(images, labels)
    forget_peak()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - start)
    return {"peak": memory("VmHWM"), "seconds": min(seconds)}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
