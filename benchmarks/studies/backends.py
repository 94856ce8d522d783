"""Keras's backends side by side: features, gradients, and the time of a training step.

`python -m benchmarks.studies.backends [ROUNDS]` prints two tables in Markdown. Each measurement is
a process of its own, which gets what to measure as JSON.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

from benchmarks.harness.interleaved import interleave_all
from benchmarks.harness.processes import measure
from benchmarks.harness.tables import markdown_row, markdown_table, median_and_range

BACKENDS = {"TensorFlow": "tensorflow", "JAX": "jax", "PyTorch": "torch"}
NETWORKS = ("small", "r50x1")  # of tests/backends.py
EDGES = (64, 128)
BATCH = 8
STEPS, FIRST = 8, 2  # the first ones compile


def write_arrays(network, folder, dtypes):
    from tests import backends

    backends.write(network, folder, dtypes)
    return {}


def train(edge):
    """Seconds of a training step of R50x1 on one core, the fastest of some; data are in memory.

    They are processor time, so that other work on the machine counts less.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before a backend counts the cores
    import keras_bit

    rule = keras_bit.HyperRule(edge, 1000, BATCH)
    model = keras_bit.BiTClassifier(keras_bit.BiTBackbone(50, 1), 10)
    keras_bit.compile_classifier(model, rule.optimizer())
    images = np.random.default_rng(0).uniform(0, 1, (BATCH, edge, edge, 3)).astype("float32")
    labels = np.eye(10, dtype="float32")[:BATCH]
    seconds = []
    for _ in range(FIRST + STEPS):
        start = time.process_time()
        model.train_on_batch(images, labels)
        seconds.append(time.process_time() - start)
    return {"seconds": min(seconds[FIRST:])}


def print_differences(network):
    """Against TensorFlow in float64, whose features are the NumPy oracle's to 1e-14."""
    from tests.backends import differences

    with tempfile.TemporaryDirectory() as folder:
        arrays = {"network": network, "folder": folder}
        for name in BACKENDS.values():
            dtypes = ["float32"] if name == "jax" else ["float32", "float64"]
            spec = {"write_arrays": {**arrays, "dtypes": dtypes}}
            measure("studies.backends", spec, {"KERAS_BACKEND": name})
        found = {path.stem: dict(np.load(path)) for path in pathlib.Path(folder).iterdir()}
    exact = found.pop("tensorflow-float64")
    rows = {name: differences(arrays, exact) for name, arrays in sorted(found.items())}
    groups = list(next(iter(rows.values())))
    cells = [[name, *(f"{errors[group]:.1e}" for group in groups)] for name, errors in rows.items()]
    print("\n".join([*markdown_table([network, *groups], cells), ""]))


def print_seconds(rounds):
    def steps_on(name, edge):
        spec = {"train": {"edge": edge}}
        return lambda: measure("studies.backends", spec, {"KERAS_BACKEND": name})

    headings = [f"R50x1, batch {BATCH}, seconds of a step on one core", *BACKENDS]
    print("\n".join(markdown_table(headings, [])))
    for edge in EDGES:
        found = interleave_all({k: steps_on(name, edge) for k, name in BACKENDS.items()}, rounds)
        seconds = [[one["seconds"] for one in found[name]] for name in BACKENDS]
        print(markdown_row([f"{edge} px", *map(median_and_range, seconds)]), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        ((task, arguments),) = json.loads(sys.argv[1]).items()
        print(json.dumps({"write_arrays": write_arrays, "train": train}[task](**arguments)))
    else:
        for network in NETWORKS:
            print_differences(network)
        print_seconds(int(sys.argv[1]) if sys.argv[1:] else 3)
