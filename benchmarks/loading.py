"""Loads a file of weights in a process of its own, and tells how long it took and how much memory.

Run by `test_weights.py`: `python -m benchmarks.loading CONTENDER FILE`.
"""

import json
import os
import sys
import threading
import time

INTERVAL = 0.005  # seconds between two looks at the memory in use


def load_with_numpy(path):
    import numpy as np

    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def load_with_keras_bit(path):
    import keras_bit

    return keras_bit.BiTBackbone.from_weights(path)


CONTENDERS = {"numpy.load": load_with_numpy, "keras_bit": load_with_keras_bit}


def warm_up():
    """Imports what is needed and makes the first layer: neither is part of loading."""
    import keras_bit

    keras_bit.BiTBackbone((1, 1, 1, 1), 0.25).named_weights()


def memory_in_use():
    """Bytes of this process that lie in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(load, path):
    """Seconds, and the bytes in use at the peak beyond those before."""
    before = peak = memory_in_use()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(INTERVAL):
            peak = max(peak, memory_in_use())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    loaded = load(path)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    peak = max(peak, memory_in_use())
    del loaded
    return {"seconds": seconds, "peak": peak - before}


if __name__ == "__main__":
    contender, file = sys.argv[1:]
    if contender != "numpy.load":
        warm_up()
    print(json.dumps(measure(CONTENDERS[contender], file)))
