"""The input pipeline, from a folder of JPEG files to training batches, beside those of today.

"First epoch" begins with the folder and ends with the last batch: listing, decoding, resizing,
caching; it is timed in this process, and in new ones, as a program meets it. "Later epochs" are
timed on an iterator that has been through the first one. "Decoding alone" is the bound of a first
epoch: every JPEG file decoded once, on all cores, and nothing else.

What needs a fresh process - one core, memory - is in `preparing.py`, and what grows with the number
of file names in `names.py`; both run here on a few images, and by themselves print their tables.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import keras_bit
from benchmarks import names, preparing
from benchmarks.peer_pipelines import copied_pipeline, keras_pipeline
from benchmarks.photographs import Case
from benchmarks.races import Race, Turn

# Some of a contender's batches are ready when its turn comes: they are drawn first, and so many
# are timed that what was left of them weighs little.
BATCHES_READY = 8
LATER_BATCHES = 50


SMALL = [Case(16, 125, 128, 120, batch_size=16), Case(16, 125, 40, 32, batch_size=16)]
REAL = [Case(128, 500, 512, 480, batch_size=64), Case(128, 500, 160, 128, batch_size=64)]


def races(full):
    cases, rounds = (REAL, 5) if full else (SMALL, 2)
    for case in cases:
        later_epochs = -(-LATER_BATCHES // case.batches)
        yield _race("first epoch", _first_epoch, {**CONTENDERS, **BOUND}, case, 1, rounds)
        yield _race("later epochs", _later_epochs, CONTENDERS, case, later_epochs, rounds)
    for case in cases if full else cases[:1]:
        yield preparing.first_epochs(case, rounds if full else 1)


def _race(work, make_turn, starts, case, epochs, rounds):
    turns = {name: partial(make_turn, start, case, epochs) for name, start in starts.items()}
    return Race(f"{work}: {case}", epochs * case.images, rounds, turns)


def test_input(race, contender, report):
    report(race, contender)


def test_contenders_prepare_the_same_kind_of_batch(tmp_path):
    case = SMALL[0]
    for name, start in CONTENDERS.items():
        images, labels = next(start(case, tmp_path))
        images = images["images"] if isinstance(images, dict) else images
        white = 255 if images.dtype == "uint8" else 1
        assert images.shape == (case.batch_size, case.crop_size, case.crop_size, 3), name
        assert 0.9 * white < np.max(images) < 1.001 * white, name
        np.testing.assert_allclose(np.sum(labels, axis=1), 1.0, rtol=1e-5, err_msg=name)


def test_one_core_and_its_memory(benchmark):
    found = {}

    def in_a_fresh_process():
        found.update(preparing.measured(preparing.DISK, SMALL[1], timed=40, cores=1))

    benchmark.pedantic(in_a_fresh_process)
    benchmark.extra_info.update(found)
    assert found["rate"] > 0 and found["anon"] > 0


def test_growth_with_file_names(benchmark):
    lines = benchmark.pedantic(lambda: names.table([1000, 10_000]))
    benchmark.extra_info["table"] = lines
    assert len(lines) == 4


def _first_epoch(start, case, epochs):
    cache = tempfile.TemporaryDirectory(prefix="keras_bit-cache-")

    def clear():
        shutil.rmtree(cache.name)
        Path(cache.name).mkdir()

    def epoch():
        _draw(start(case, cache.name), epochs * case.batches)

    return Turn(clear, epoch)


def _later_epochs(start, case, epochs):
    cache = tempfile.TemporaryDirectory(prefix="keras_bit-cache-")
    batches = start(case, cache.name)
    _draw(batches, case.batches)

    def draw_those_ready():
        _draw(batches, BATCHES_READY)

    def epoch():
        _draw(batches, epochs * case.batches)
        return cache  # which would vanish with the last reference to it

    return Turn(draw_those_ready, epoch)


def _draw(batches, count):
    for _ in range(count):
        next(batches)


def _keras_bit(case, cache_dir, **options):
    data = keras_bit.image_folder(case.folder)
    train, _ = keras_bit.pipelines(data, case.rule(), cache_dir, **options)
    return iter(train)


def _decoding(case, cache_dir):
    images = keras_bit.image_folder(case.folder).train.map(np.shape)
    for _ in range(case.batches):
        yield [next(images) for _ in range(case.batch_size)]


def _copied(case, cache_dir):
    return copied_pipeline(Path(case.folder, "train"), Path(cache_dir, "images"), case.rule())


def _keras(case, cache_dir):
    return keras_pipeline(Path(case.folder, "train"), case.rule())


CONTENDERS = {
    "keras_bit, float32": _keras_bit,
    "keras_bit, uint8": partial(_keras_bit, dtype="uint8"),
    "keras_bit, uint8, mix_in_model": partial(_keras_bit, dtype="uint8", mix_in_model=True),
    "tf.data as copied": _copied,
    "image_dataset_from_directory": _keras,
}
BOUND = {"keras_bit, decoding alone": _decoding}
