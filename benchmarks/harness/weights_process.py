"""Loads a file of weights in a process of its own, and tells how long it took and how much memory.

Run by the suite of weight files: `python -m benchmarks.harness.weights_process SPEC`.
"""

import json
import sys
import threading
import time

import numpy as np  # for all of them: importing it is no part of loading

from benchmarks.harness.memory import memory

INTERVAL = 0.005  # seconds between two looks at the memory in use


def load_with_numpy(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def load_with_keras_bit(path):
    import keras_bit

    return keras_bit.BiTBackbone.from_weights(path)


IMPLEMENTATIONS = {"numpy.load": load_with_numpy, "keras_bit": load_with_keras_bit}


def warm_up():
    """Imports the package and makes the first layer: neither is part of loading."""
    import keras_bit

    keras_bit.BiTBackbone((1, 1, 1, 1), 0.25).named_weights()


def measure(implementation, path):
    """Seconds, and the bytes in use at the peak beyond those before."""
    if implementation != "numpy.load":
        warm_up()
    before = peak = memory("VmRSS")
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(INTERVAL):
            peak = max(peak, memory("VmRSS"))

    watcher = threading.Thread(target=watch, daemon=True)  # else a load that fails would not end
    watcher.start()
    start = time.perf_counter()
    loaded = IMPLEMENTATIONS[implementation](path)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    peak = max(peak, memory("VmRSS"))
    del loaded
    return {"seconds": seconds, "peak": peak - before}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
