"""LiteRT, formerly TensorFlow Lite: for phones and small computers."""

import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np

from keras_bit.core.child_process import import_environment
from keras_bit.core.device import usable_cores
from keras_bit.exporters.contents import INT8, Contents, Run

# A program that runs a file on black images.
_PROBE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1])
(source,) = interpreter.get_input_details()
shape = tuple(map(int, sys.argv[2:]))
interpreter.resize_tensor_input(source["index"], shape)
interpreter.allocate_tensors()
interpreter.set_tensor(source["index"], np.zeros(shape, source["dtype"]))
interpreter.invoke()
"""


def write(contents: Contents, path: pathlib.Path) -> None:
    """Writes the file, its metadata as files of a zip archive that follows the model in it.

    So the tools of LiteRT have them: `unzip photos.tflite`.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(os.fspath(contents.graph))
    if contents.quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if contents.quantize == INT8:
        converter.representative_dataset = lambda: ([image] for image in contents.calibration)
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in contents.metadata.items():
            archive.writestr(f"{name}.json", text)


def load(path: pathlib.Path) -> Run:
    """Returns the function of the file, in as many threads as there are cores."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(os.fspath(path), num_threads=usable_cores())
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = None

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal shape
        if images.shape != shape:
            if shape is None:
                _probe(path, images.shape)
            shape = images.shape
            interpreter.resize_tensor_input(source["index"], shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def _probe(path, shape):
    """Raises where the file cannot be run: LiteRT then ends the process instead of raising.

    So it does where integers of a layer have no scale, as group norms on a single pixel.
    """
    command = [sys.executable, "-c", _PROBE, os.fspath(path), *map(str, shape)]
    done = subprocess.run(command, env=import_environment(), capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        raise RuntimeError(f"its process ended with code {done.returncode}: {said}")
