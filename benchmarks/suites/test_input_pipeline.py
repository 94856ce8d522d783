"""The input pipeline, from a folder of JPEG files to training batches, beside those of today.

"First epoch" begins with the folder and ends with the last batch: listing, decoding, resizing,
caching; it is timed in this process, and in new ones, as a program meets it. "Later epochs" are
timed on an iterator that has been through the first one. "Decoding alone" is the bound of a first
epoch: every JPEG file decoded once, on all cores, and nothing else.

Of the studies `pipeline_supply` (one core, memory) and `file_count` a few images run here.
"""

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import keras_bit
from benchmarks.harness.interleaved import InterleavedRun, Round
from benchmarks.harness.photographs import PipelineCase
from benchmarks.harness.processes import InterleavedProcesses, Quantity, measure_pipeline
from benchmarks.implementations.input_pipelines import DISK, MEMORY, PIPELINES
from benchmarks.studies import file_count

# Some batches of an implementation are ready when its round begins: they are drawn first, and so
# many are timed that what was left of them weighs little.
BATCHES_READY = 8
LATER_BATCHES = 50
# Else a process would find the memory that the one before it has just given back; a virtual
# machine's host takes that within two seconds.
PAUSE = 5  # seconds

SMALL = [
    PipelineCase(16, 125, 128, 120, batch_size=16),
    PipelineCase(16, 125, 40, 32, batch_size=16),
]
REAL = [
    PipelineCase(128, 500, 512, 480, batch_size=64),
    PipelineCase(128, 500, 160, 128, batch_size=64),
]
TIMED = {name: start for name, start in PIPELINES.items() if name != MEMORY}


def interleaved_runs(full):
    cases, rounds = (REAL, 5) if full else (SMALL, 2)
    for case in cases:
        later_epochs = -(-LATER_BATCHES // case.batches)
        yield _interleaved("first epoch", _first_epoch, {**TIMED, **BOUND}, case, 1, rounds)
        yield _interleaved("later epochs", _later_epochs, TIMED, case, later_epochs, rounds)
    for case in cases if full else cases[:1]:
        yield _first_epochs_of_processes(case, rounds if full else 1)


def _interleaved(work, make_round, starts, case, epochs, rounds):
    made = {name: partial(make_round, start, case, epochs) for name, start in starts.items()}
    return InterleavedRun(f"{work}: {case}", epochs * case.images, rounds, made)


def test_input(interleaved_run, implementation, report):
    report(interleaved_run, implementation)


def test_implementations_prepare_the_same_kind_of_batch(tmp_path):
    case = SMALL[0]
    for name, start in TIMED.items():
        images, labels = next(start(case.folder, tmp_path, case.rule()))
        images = images["images"] if isinstance(images, dict) else images
        white = 255 if images.dtype == "uint8" else 1
        assert images.shape == (case.batch_size, case.crop_size, case.crop_size, 3), name
        assert 0.9 * white < np.max(images) < 1.001 * white, name
        np.testing.assert_allclose(np.sum(labels, axis=1), 1.0, rtol=1e-5, err_msg=name)


def test_one_core_and_its_memory(benchmark):
    found = {}

    def in_a_new_process():
        found.update(measure_pipeline(DISK, SMALL[1], timed=40, cores=1))

    benchmark.pedantic(in_a_new_process)
    benchmark.extra_info.update(found)
    assert found["rate"] > 0 and found["anon"] > 0


def test_growth_with_file_names(benchmark):
    lines = benchmark.pedantic(lambda: file_count.table([1000, 10_000]))
    benchmark.extra_info["table"] = lines
    assert len(lines) == 4


def _first_epoch(start, case, epochs):
    cache = tempfile.TemporaryDirectory(prefix="keras_bit-cache-")

    def clear():
        shutil.rmtree(cache.name)
        Path(cache.name).mkdir()

    def epoch():
        _draw(start(case.folder, cache.name, case.rule()), epochs * case.batches)

    return Round(clear, epoch)


def _later_epochs(start, case, epochs):
    cache = tempfile.TemporaryDirectory(prefix="keras_bit-cache-")
    batches = start(case.folder, cache.name, case.rule())
    _draw(batches, case.batches)

    def draw_those_ready():
        _draw(batches, BATCHES_READY)

    def epoch():
        _draw(batches, epochs * case.batches)
        return cache  # which would vanish with the last reference to it

    return Round(draw_those_ready, epoch)


def _draw(batches, count):
    for _ in range(count):
        next(batches)


def _first_epochs_of_processes(case, rounds):
    """First epochs of new processes, from listing the files to the last batch."""
    starts = {name: partial(_first_epoch_of_a_process, name, case) for name in TIMED}
    quantities = Quantity("seconds", "seconds"), Quantity("rate", "images/s", more_is_better=True)
    return InterleavedProcesses(f"new process, first epoch: {case}", rounds, starts, quantities)


def _first_epoch_of_a_process(name, case):
    time.sleep(PAUSE)
    seconds = measure_pipeline(name, case, timed=1)["first"]
    return {"seconds": seconds, "rate": case.batches * case.batch_size / seconds}


def _decoding(folder, cache_dir, rule):
    images = keras_bit.image_folder(folder).train.map(np.shape)
    for _ in range(rule.dataset_size // rule.batch_size):
        yield [next(images) for _ in range(rule.batch_size)]


BOUND = {"keras_bit, decoding alone": _decoding}
