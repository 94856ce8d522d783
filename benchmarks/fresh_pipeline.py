"""Prepares training batches in this process, and tells how many a second, and in how much memory.

Run by `preparing.py`: `python -m benchmarks.fresh_pipeline SPEC`.
"""

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import memory
from benchmarks.photographs import Case

DISK = "keras_bit, cache_dir"
MEMORY = "keras_bit, in memory"
IN_MODEL = "keras_bit, uint8, mix_in_model"
COPIED = "tf.data as copied"
KERAS = "image_dataset_from_directory"
FIELDS = "RssAnon", "RssFile"


def batches_of(contender, folder, cache_dir, rule):
    """An endless iterator of training batches."""
    if contender == COPIED:
        from benchmarks.peer_pipelines import copied_pipeline

        return copied_pipeline(Path(folder, "train"), Path(cache_dir, "images"), rule)
    if contender == KERAS:
        from benchmarks.peer_pipelines import keras_pipeline

        return keras_pipeline(Path(folder, "train"), rule)
    import keras_bit

    train, _ = keras_bit.pipelines(
        keras_bit.image_folder(folder),
        rule,
        None if contender == MEMORY else cache_dir,
        dtype="uint8" if "uint8" in contender else "float32",
        mix_in_model=contender == IN_MODEL,
    )
    return iter(train)


def measure(contender, folder, case, timed, cores):
    """After one whole epoch: images per second over `timed` batches, and memory before and after.

    Args:
        contender: Name of a pipeline.
        folder: Folder of the photographs of `case`.
        case: The fields of a `Case`.
        timed: Number of batches.
        cores: How many of the cores that this process may use it is to use; `None` for all.

    Returns:
        Dict of `first` (seconds to the end of the first epoch), `rate`, and `anon` and `file`, the
        growth of `RssAnon` and `RssFile` since the imports.
    """
    case = Case(*case)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    for name in ("keras_bit", "tensorflow_probability"):  # what an import takes is not counted
        importlib.import_module(name)
    import tensorflow as tf

    tf.random.stateless_uniform((1,), (0, 0))
    before = [memory(field) for field in FIELDS]
    with tempfile.TemporaryDirectory(prefix="keras_bit-cache-") as cache_dir:
        start = time.perf_counter()
        batches = batches_of(contender, folder, cache_dir, case.rule())
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
