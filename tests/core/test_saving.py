import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_bit
from tests.conftest import as_numpy

ALONE = """
import keras, sys
for path in sys.argv[1:]:
    try:
        keras.saving.load_model(path)
    except TypeError as error:
        print("`import keras_bit` before loading" in str(error))
"""
NETWORK = {"depth": (1, 1, 1, 1), "width": 1 / 16}


def classifier():
    return keras_bit.BiTClassifier(keras_bit.BiTBackbone(**NETWORK), 3)


def sequential():
    layers = [keras_bit.BiTBackbone(**NETWORK), keras_bit.ZeroInitHead(3)]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers])


def functional():
    images = keras.Input((32, 32, 3))
    return keras.Model(images, keras_bit.BiTBackbone(**NETWORK)(images))


@pytest.mark.slow
def test_a_process_without_the_package_is_told_to_import_it(tmp_path, rng):
    images = rng.random((2, 32, 32, 3)).astype("float32")
    paths = []
    for make_model in (classifier, sequential, functional):
        model, path = make_model(), tmp_path / f"{make_model.__name__}.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(model(images)))
        paths.append(str(path))
    run = subprocess.run([sys.executable, "-c", ALONE, *paths], capture_output=True, text=True)
    assert run.stdout.split("\n")[:3] == ["True"] * 3, run.stdout + run.stderr
