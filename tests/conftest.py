"""Shared by the tests: a fresh Keras before each, and small helpers."""

import os
import signal

import keras
import numpy as np
import pytest

ON_TORCH = keras.backend.backend() == "torch"
# Keras refuses several steps at a call there; `torch.compile` of a step takes the better part of a
# minute, and then is Keras's own.
not_on_torch = pytest.mark.skipif(ON_TORCH, reason="Keras on PyTorch runs single, eager steps")


def exhaustive(*values):
    """A case of `parametrize` that only `-m slow` runs, and not `.ci/run`."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in a shell's background jobs, and in the processes that tests want to interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Two logical devices, for `MirroredStrategy`; must be asked for before the first tensor.
        device = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(device, two)
        _switch_autotune_off(tf)


def _switch_autotune_off(tf):
    """Deletes iterators at once, also those that Keras makes; see `keras_bit/data/tf_batches.py`.

    They are deleted in other tests than those that made them, one in ten after half a minute.
    """
    from tensorflow.python.data.ops.dataset_ops import DatasetV2

    options = tf.data.Options()
    options.autotune.enabled = False
    DatasetV2._apply_debug_options = lambda dataset: dataset.with_options(options)


@pytest.fixture(autouse=True)
def fresh_keras():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    # With free_memory, Keras collects garbage: 0.3 s for every test.
    keras.backend.clear_session(free_memory=False)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def leave_pictures_white(patch):
    """Makes pictures of one pixel: to draw those of a report takes a third of a short run."""
    from PIL import Image

    white = Image.new("RGB", (1, 1), "white")
    patch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **_: white.save(path, "PNG")
    )


@pytest.fixture(scope="module")
def undrawn():
    with pytest.MonkeyPatch.context() as patch:
        leave_pictures_white(patch)
        yield


@pytest.fixture
def two_workers(monkeypatch):
    """Two threads for the images, whatever the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


@pytest.fixture
def reload_model(tmp_path):
    """Saves a model as `.keras` and loads it again."""

    def save_and_load(model):
        path = tmp_path / "model.keras"
        model.save(path)
        return keras.saving.load_model(path)

    return save_and_load


@pytest.fixture
def randomize(rng):
    """Gives every variable random values, gammas around one: zeros and ones hide mistakes."""

    def fill(layer):
        for variable in layer.weights:
            center = 1.0 if variable.path.endswith("gamma") else 0.0
            variable.assign(rng.normal(center, 0.3, variable.shape))

    return fill


def as_numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.fixture(scope="session")
def two_replicas():
    """A `MirroredStrategy` over two logical devices of the CPU."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
