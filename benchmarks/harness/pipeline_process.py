"""Prepares training batches in this process, and tells how many a second, and in how much memory.

Run by `measure_pipeline`: `python -m benchmarks.harness.pipeline_process SPEC`.
"""

import importlib
import json
import os
import sys
import tempfile
import time

from benchmarks.harness.memory import memory
from benchmarks.harness.photographs import PipelineCase
from benchmarks.implementations.input_pipelines import PIPELINES

FIELDS = "RssAnon", "RssFile"


def measure(implementation, folder, case, timed, cores):
    """After one whole epoch: images per second over `timed` batches, and memory before and after.

    Args:
        implementation: Name of one of `PIPELINES`.
        folder: Folder of the photographs of `case`.
        case: The fields of a `PipelineCase`.
        timed: Number of batches.
        cores: How many of the cores that this process may use it is to use; `None` for all.

    Returns:
        Dict of `first` (seconds to the end of the first epoch), `rate`, and `anon` and `file`, the
        growth of `RssAnon` and `RssFile` since the imports.
    """
    case = PipelineCase(*case)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    for name in ("keras_bit", "tensorflow_probability"):  # what an import takes is not counted
        importlib.import_module(name)
    import tensorflow as tf

    tf.random.stateless_uniform((1,), (0, 0))
    before = [memory(field) for field in FIELDS]
    with tempfile.TemporaryDirectory(prefix="keras_bit-cache-") as cache_dir:
        start = time.perf_counter()
        batches = PIPELINES[implementation](folder, cache_dir, case.rule())
        for _ in range(case.batches):
            next(batches)
        first = time.perf_counter() - start
        after = [memory(field) for field in FIELDS]
        start = time.perf_counter()
        for _ in range(timed):
            next(batches)
        rate = timed * case.batch_size / (time.perf_counter() - start)
    anon, file = (b - a for a, b in zip(before, after, strict=True))
    return {"first": first, "rate": rate, "anon": anon, "file": file}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
