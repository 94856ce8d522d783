"""Batches without TensorFlow: those of `tf.data`, to the bit."""

import itertools
import sys
import textwrap
import threading
import time

import keras
import numpy as np
import pytest

from keras_bit.data import resize
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.pipeline import pipelines
from keras_bit.hyperrule.rule import HyperRule
from tests.processes import FAST_COMPILING, run_python

EDGE, CROP = 12, 8


def make_data(train_size=10, test_size=7, multi_label=False):
    rng = np.random.default_rng(0)
    sides = []
    for size in (train_size, test_size):
        labels = rng.integers(0, 2, (size, 3)) if multi_label else np.arange(size) % 3
        sides += [rng.integers(0, 256, (size, EDGE, EDGE, 3), np.uint8), labels]
    return ImageDataset.from_arrays(*sides)


def make_rule(**changes):
    changes = {"batch_size": 4, "resize_edge": EDGE, "crop_size": CROP, **changes}
    return HyperRule(EDGE, 10, **changes)


def both(data=None, mixup_alpha=0.0, micro_batch_size=None, batch_size=4, **options):
    """The batches of NumPy and those of TensorFlow."""
    sizes = {"batch_size": batch_size, "micro_batch_size": micro_batch_size or batch_size}
    rule = make_rule(mixup_alpha=mixup_alpha, **sizes)
    data = data or make_data()
    return (pipelines(data, rule, py_dataset=py, **options) for py in (True, False))


def assert_same_batches(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        keras.tree.assert_same_structure(batch, other)
        for part, same in zip(keras.tree.flatten(batch), keras.tree.flatten(other), strict=True):
            assert part.dtype == same.dtype.as_numpy_dtype
            np.testing.assert_array_equal(part, same)


CASES = [
    {"mixup_alpha": 0.3},
    {"dtype": "uint8", "initial_step": 5, "seed": 3, "test_edge": 9},
    {"mixup_alpha": 0.3, "dtype": "uint8", "mix_in_model": True},
    {"mixup_alpha": 0.3, "shard": (1, 2)},
    {"mixup_alpha": 0.3, "dtype": "uint8", "batch_size": 12, "micro_batch_size": 2},
]
SLOW_CASES = [
    {},
    {"mixup_alpha": 2.0, "dtype": "uint8"},
    {"mixup_alpha": 0.3, "mix_in_model": True, "class_weight": (0.3, 1.7, 2.3)},
    {"mix_in_model": True, "micro_batch_size": 2},
    {"mixup_alpha": 0.3, "batch_size": 6, "micro_batch_size": 3, "initial_step": 7},
    {"mixup_alpha": 0.3, "batch_size": 12, "micro_batch_size": 6, "shard": (2, 3)},
    {"mixup_alpha": 0.3, "class_weight": "balanced", "batch_size": 17},
    {"mixup_alpha": 0.3, "data": make_data(multi_label=True)},
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "options", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)]
)
def test_batches_are_those_of_tensorflow_to_the_bit(options):
    (train, test), (tf_train, tf_test) = both(**options)
    assert_same_batches(itertools.islice(train, 12), tf_train.take(12))
    assert train.num_batches is None
    assert_same_batches(test, tf_test)
    assert len(test) == test.num_batches == tf_test.cardinality()


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_photographs_are_mixed_to_the_bit(rng, dtype):
    images = rng.integers(0, 256, (40, 256, 256, 3), np.uint8)
    data = ImageDataset.from_arrays(images, np.arange(40) % 4, images[:3], [0, 1, 2])
    rule = HyperRule(256, 40, 32, resize_edge=256, crop_size=224, mixup_alpha=0.3)
    train, tf_train = (pipelines(data, rule, dtype=dtype, py_dataset=py)[0] for py in (True, False))
    assert_same_batches(itertools.islice(train, 4), tf_train.take(4))


def test_mixing_bytes_rounds_nothing():
    white = np.full((4, CROP, CROP, 3), 255, np.uint8)
    data = ImageDataset.from_arrays(white, [0, 1, 0, 1], white, [0, 1, 0, 1])
    rule = make_rule(mixup_alpha=0.3, resize_edge=CROP, random_crop=False)
    train, _ = pipelines(data, rule, py_dataset=True)
    for images, labels in itertools.islice(train, 20):
        assert np.all(images == np.float32(255) * np.float32(1 / 255))
        assert np.all(labels.sum(axis=1) == 1)


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.3])
def test_batches_are_a_function_of_their_index(mixup_alpha):
    rule = make_rule(mixup_alpha=mixup_alpha, micro_batch_size=2)
    train, test = pipelines(make_data(), rule, py_dataset=True)
    in_order = list(itertools.islice(train, 8))
    for index in (7, 0, 3, 3, 2):
        for part, expected in zip(train[index], in_order[index], strict=True):
            np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(test[-1][0], test[len(test) - 1][0])
    assert len(test[-1][0]) == 1
    for dataset, index in [(train, -1), (test, len(test)), (test, -len(test) - 1)]:
        with pytest.raises(IndexError, match=f"no batch of index {index}"):
            dataset[index]


def test_batches_are_made_ahead_in_threads(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(3)), raising=False)
    train, _ = pipelines(make_data(), make_rule(), py_dataset=True)
    made, make, names = [], train._make, set()

    def recorded(index):
        made.append(index)
        names.add(threading.current_thread().name.rpartition("_")[0])
        return make(index)

    monkeypatch.setattr(train, "_make", recorded)
    for index in range(5):
        train[index]
    end = time.monotonic() + 10
    while len(made) < 8 and time.monotonic() < end:
        time.sleep(0.001)
    assert sorted(made) == list(range(8))  # each once
    assert names == {"keras_bit-batches"}


def test_an_error_in_a_thread_is_raised(monkeypatch):
    train, _ = pipelines(make_data(), make_rule(), py_dataset=True)
    monkeypatch.setattr(train, "_make", lambda index: 1 // (index - 2))
    assert train[0] == -1 and train[1] == -1
    with pytest.raises(ZeroDivisionError):
        train[2]


def test_workers_of_keras_are_refused():
    for dataset in pipelines(make_data(), make_rule(), py_dataset=True):
        with pytest.raises(ValueError, match="`workers` must stay as it is.*workers=4"):
            dataset.workers = 4
        with pytest.raises(ValueError, match="`use_multiprocessing` must stay as it is"):
            dataset.use_multiprocessing = True
        assert (dataset.workers, dataset.use_multiprocessing) == (1, False)


def make_model():
    """A model that is built by `fit`, which looks at a batch before it trains with it."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"])
    return model


def fitted(train, test):
    """The loss of each epoch, and of each validation."""
    options = {"validation_data": test, "shuffle": False, "verbose": 0}
    history = make_model().fit(train, steps_per_epoch=3, epochs=3, **options).history
    return history["loss"], history["val_loss"]


def fitted_by_hand(train, test):
    """`fitted` with plain arrays, the batches one after another."""
    (images, labels), (test_images, test_labels) = (
        map(np.concatenate, zip(*itertools.islice(side, count), strict=True))
        for side, count in ((train, 9), (test, len(test)))
    )
    model, losses = make_model(), []
    for epoch in range(3):
        part = slice(epoch * len(images) // 3, (epoch + 1) * len(images) // 3)
        data = {"x": images[part], "y": labels[part], "validation_data": (test_images, test_labels)}
        history = model.fit(**data, batch_size=len(images) // 9, shuffle=False, verbose=0).history
        losses.append(history["loss"] + history["val_loss"])
    return tuple(zip(*losses, strict=True))


@pytest.mark.slow
@pytest.mark.tensorflow
def test_fit_sees_the_batches_of_tensorflow_in_their_order():
    losses, expected = (fitted(*sides) for sides in both(mixup_alpha=0.3))
    assert losses == expected


def run_without_tensorflow(script, backend, **environment):
    """What a script prints where TensorFlow cannot be imported."""
    start = "import tests.no_tensorflow, sys\ndel sys.modules['PIL']\n"
    variables = {"KERAS_BACKEND": backend, **environment}
    done = run_python("-c", start + textwrap.dedent(script), **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


FIT = """
    import keras, numpy
    from tests.data.test_py_batches import *

    sides = pipelines(make_data(), make_rule(mixup_alpha=0.3))
    assert isinstance(sides[0], keras.utils.PyDataset)
    losses = fitted(*sides)
    numpy.testing.assert_allclose(losses, fitted_by_hand(*sides), rtol=1e-5)
    """


@pytest.mark.slow
def test_keras_on_pytorch_trains_without_tensorflow():
    pytest.importorskip("torch")
    run_without_tensorflow(FIT, "torch")


@pytest.mark.slow
def test_keras_on_jax_trains_without_tensorflow_on_one_device_and_on_two():
    script = """
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        sides = pipelines(make_data(), make_rule(mixup_alpha=0.3))
        assert len(sides[1][len(sides[1]) - 1]) == 3, "the last batch is filled up"
        numpy.testing.assert_allclose(fitted(*sides), losses, rtol=1e-5)
        print(keras.distribution.list_devices())
        """
    script = textwrap.dedent(FIT) + textwrap.dedent(script)
    flags = "--xla_force_host_platform_device_count=2"
    assert run_without_tensorflow(script, "jax", XLA_FLAGS=flags) == "['cpu:0', 'cpu:1']\n"


@pytest.mark.slow
def test_fine_tune_runs_without_tensorflow(tmp_path):
    script = f"""
        import sys
        import keras_bit

        data = keras_bit.digits(examples_per_class=4)
        result = keras_bit.fine_tune(
            data, output={str(tmp_path)!r}, depth=(1, 1, 1, 1), width=0.25, crop_size=32,
            batch_size=8, schedule_length=4, steps_per_epoch=2, mixup_alpha=0.2, verbose=0,
        )
        assert sys.modules["tensorflow"] is None
        print(result.history["updates"])
        """
    assert run_without_tensorflow(script, "jax", XLA_FLAGS=FAST_COMPILING) == "[2, 4]\n"
    written = {path.name for path in tmp_path.iterdir()}
    assert {"model.keras", "metrics.json", "history.csv", "report.html"} < written


@pytest.mark.tensorflow
def test_either_kind_can_be_asked_for(monkeypatch):
    import tensorflow as tf

    assert isinstance(pipelines(make_data(), make_rule())[0], tf.data.Dataset)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(resize, "_with_tensorflow", resize._with_numpy)  # as on other backends
    train, test = pipelines(make_data(), make_rule())
    assert isinstance(train, keras.utils.PyDataset) and isinstance(test, keras.utils.PyDataset)
    with pytest.raises(ImportError, match="`py_dataset=False` needs TensorFlow"):
        pipelines(make_data(), make_rule(), py_dataset=False)
    with pytest.raises(ValueError, match="`py_dataset` must .* Received: py_dataset='no'"):
        pipelines(make_data(), make_rule(), py_dataset="no")
