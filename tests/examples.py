"""A pytest plugin: runs every example in the package's docstrings, `>>>` and ```python alike."""

import pathlib
from doctest import ELLIPSIS

from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser


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
    path=str(pathlib.Path(__file__).parent.parent / "keras_bit"),
    pattern="*.py",
    setup=prepare,
    document_types={".py": PythonDocStringDocument},
).pytest()
