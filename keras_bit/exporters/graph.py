"""The graph of a classifier with what stands around it, as a SavedModel that formats are made of.

The graph is TensorFlow's. Under another backend of Keras a child process with TensorFlow's traces
it, so that every format can be made from every backend.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras

from keras_bit.core.child_process import import_environment
from keras_bit.exporters.contents import INPUT_NAME
from keras_bit.exporters.result import ExportError
from keras_bit.layers.image_input import without_guard

UINT8, FLOAT32 = INPUTS = ("uint8", "float32")
ENDPOINT = "serve"
_MODEL_FILE, _SERVING_FILE = "model.keras", "serving.json"


@dataclasses.dataclass(frozen=True)
class Serving:
    """What an exported graph does before and after the network.

    Attributes:
        input: `"uint8"`, or `"float32"` for images in [0, 1].
        image_size: Height and width of the images, each `None` for any.
        network_size: Height and width that images are resized to, or `None` to leave them.
        value_range: What the network takes.
        temperature: What its outputs are divided by.
        activation: `"softmax"`, `"sigmoid"`, or `None`.
        guarded: Whether the outputs of images out of range, or too small, are NaN.
    """

    input: str
    image_size: tuple[int | None, int | None]
    network_size: tuple[int, int] | None
    value_range: tuple[int, int]
    temperature: float
    activation: str | None
    guarded: bool

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of a batch of images."""
        return (None, *self.image_size, 3)

    @property
    def resizes(self) -> bool:
        """Whether images are resized inside."""
        return self.network_size not in (None, self.image_size)

    def function(self, model: keras.Model) -> Callable[[Any], Any]:
        """Returns the function from images to outputs, in TensorFlow's operations."""
        import tensorflow as tf

        def serve(images):
            pixels, white = tf.cast(images, "float32"), 255 if self.input == UINT8 else 1
            if self.resizes:
                # Rounded as the pipeline's images are, which are stored in 8 bits.
                pixels = tf.round(_resized(pixels * (255 / white), self.network_size))
                white = 255
            low, high = self.value_range
            pixels = pixels * ((high - low) / white) + low
            with contextlib.nullcontext() if self.guarded else without_guard():
                outputs = model(pixels, training=False)
            outputs = outputs / self.temperature
            return getattr(tf.nn, self.activation)(outputs) if self.activation else outputs

        return serve


def _resized(pixels, size):
    import tensorflow as tf

    return tf.raw_ops.ResizeBilinear(images=pixels, size=size, half_pixel_centers=True)


def write_graph(model: keras.Model, serving: Serving, folder: pathlib.Path) -> None:
    """Writes a SavedModel of `model`, which computes in float32, to a new folder."""
    if keras.backend.backend() == "tensorflow":
        _write_saved_model(model, serving, folder)
        return
    folder.mkdir()
    model.save(folder / _MODEL_FILE)
    (folder / _SERVING_FILE).write_text(json.dumps(dataclasses.asdict(serving)))
    code = "import sys; from keras_bit.exporters.graph import trace; trace(sys.argv[1])"
    environment = {**import_environment(), "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", code, os.fspath(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(
            "`model_or_run` must be a model that Keras can load with TensorFlow, which traces the "
            f"graph to export. Received: model_or_run={model!r}, of which it says: {reason}"
        )


def trace(folder: str) -> None:
    """Turns a folder with model and serving, as `write_graph` makes it, into a SavedModel."""
    path = pathlib.Path(folder)
    content: dict[str, Any] = json.loads((path / _SERVING_FILE).read_text())
    pairs = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    serving = Serving(**{**content, **pairs})
    model = keras.saving.load_model(path / _MODEL_FILE, compile=False)
    for name in (_MODEL_FILE, _SERVING_FILE):
        (path / name).unlink()
    _write_saved_model(model, serving, path)


def _write_saved_model(model, serving, folder):
    # Not `track(model)`: Keras would write each variable twice.
    archive = keras.export.ExportArchive()
    spec = keras.InputSpec(dtype=serving.input, shape=serving.shape, name=INPUT_NAME)
    archive.add_endpoint(ENDPOINT, serving.function(model), [spec])
    archive.write_out(os.fspath(folder), verbose=False)
