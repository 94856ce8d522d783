import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_bit
from tests.conftest import as_numpy

NETWORK = {"depth": (1, 1, 1, 1), "width": 1 / 16}


def classifier():
    return keras_bit.BiTClassifier(keras_bit.BiTBackbone(**NETWORK), 3)


def sequential():
    layers = [keras_bit.BiTBackbone(**NETWORK), keras_bit.ZeroInitHead(3)]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers])


def functional():
    images = keras.Input((32, 32, 3))
    return keras.Model(images, keras_bit.BiTBackbone(**NETWORK)(images))


@pytest.mark.parametrize("make_model", [classifier, sequential, functional])
def test_a_process_without_the_package_is_told_to_import_it(make_model, tmp_path, rng):
    model, path = make_model(), tmp_path / "model.keras"
    model.save(path)
    images = rng.random((2, 32, 32, 3)).astype("float32")
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(as_numpy(loaded(images)), as_numpy(model(images)))
    code = f"import keras; keras.saving.load_model({str(path)!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode and "`import keras_bit` before loading" in run.stderr
