"""Data, a rule and a network for searches that take no time."""

import types

import keras
import numpy as np
import pytest

from keras_bit import HyperRule, ImageDataset
from keras_bit.core.device import policy_scope
from keras_bit.training import RunPlan
from keras_bit.tuning import oracle as oracles
from tests.tuning.formula import Worker

UPDATES = 10


@pytest.fixture(scope="module")
def data():
    """Dark and bright noise, in two classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 2
    images = rng.integers(0, 128, (32, 32, 32, 3)) + 128 * labels[:, None, None, None]
    images = images.astype("uint8")
    return ImageDataset.from_arrays(images[:24], labels[:24], images[24:], labels[24:])


@pytest.fixture
def rule(data):
    sizes = {"resize_edge": 36, "crop_size": 32}
    return HyperRule(data.image_size, data.train_size, 8, schedule_length=UPDATES, **sizes)


@pytest.fixture
def quick(monkeypatch):
    """A network that compiles in no time; the search does not care which it is."""

    def build(plan, kernel_epsilon=None):
        with policy_scope(plan.precision):
            layers = [
                keras.Input((None, None, 3)),
                keras.layers.Conv2D(4, 3, strides=2),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(len(plan.data.label_names)),
            ]
            model = keras.Sequential(layers)
            model.backbone = types.SimpleNamespace(kernel_epsilon=kernel_epsilon or 1e-10)
            return model

    monkeypatch.setattr(RunPlan, "build_classifier", build)


@pytest.fixture
def no_waiting(monkeypatch):
    """An oracle is asked again at once."""
    monkeypatch.setattr(oracles, "POLL_SECONDS", 0)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Folders of searches that nothing interrupts, by kind."""
    folders = {}

    def run(kind):
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            Worker(folders[kind], kind).search()
        return folders[kind]

    return run
