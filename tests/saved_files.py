"""The files in `saved`, of version 0.1.0 before its modules moved, and of Keras 3.15."""

import pathlib

import keras
import pytest

SAVED = pathlib.Path(__file__).parent / "saved"
RUN = SAVED / "run"  # of the classes red, green and blue
KERAS_OF_FILES = (3, 15)
needs_their_keras = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < KERAS_OF_FILES,
    reason="Keras's own classes know only the configurations of their version and earlier ones",
)
