"""TensorFlow's SavedModel, run by TensorFlow."""

import pathlib
import shutil

import numpy as np

from keras_bit.exporters.contents import Contents, Run

EXTRA_FOLDER = "assets.extra"  # where TensorFlow leaves room for the files of others


def write(contents: Contents, path: pathlib.Path) -> None:
    """Writes the folder, its metadata as files in `assets.extra`."""
    shutil.copytree(contents.graph, path)
    (path / EXTRA_FOLDER).mkdir()
    for name, text in contents.metadata.items():
        (path / EXTRA_FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def load(path: pathlib.Path) -> Run:
    """Returns the function of the folder."""
    import tensorflow as tf

    with tf.device("CPU"):
        module = tf.saved_model.load(path)
    return lambda images: np.asarray(module.serve(images))
