"""A pytest plugin: runs every example in the package's docstrings, `>>>` and ```python alike."""

import pathlib
from doctest import ELLIPSIS

import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

PACKAGE = pathlib.Path(__file__).parent.parent / "keras_bit"
# Modules whose examples train for several seconds.
LONG = ("evaluation/evaluate.py", "evaluation/predict.py", "exporters/export.py")
LONG += ("training/run.py", "tuning/hypermodel.py", "tuning/search.py")


def pytest_collection_modifyitems(items):
    """Leaves long examples to the slow tests."""
    for item in items:
        if item.path.is_relative_to(PACKAGE) and item.path.relative_to(PACKAGE).as_posix() in LONG:
            item.add_marker(pytest.mark.slow)


def prepare(namespace):
    """What the examples take for granted."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_bit

    keras.utils.set_random_seed(0)
    namespace.update(keras=keras, keras_bit=keras_bit, np=np, tf=tf)


pytest_collect_file = Sybil(
    parsers=[DocTestParser(optionflags=ELLIPSIS), PythonCodeBlockParser()],
    path=str(PACKAGE),
    pattern="*.py",
    setup=prepare,
    document_types={".py": PythonDocStringDocument},
).pytest()
