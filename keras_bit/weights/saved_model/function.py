"""What a SavedModel of BiT computes itself, to compare a network with."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_bit.core.file_faults import check_whole, wrap_read_errors

TOLERANCE = 1e-4
_RANGES = ((0, 1), (-1, 1))  # the modules of Google, and those made of the authors' TF2 code


def meta_graphs(folder: pathlib.Path, source: str | os.PathLike) -> Sequence[Any]:
    """The graphs of a SavedModel, after looking whether it is one; errors name `source`."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a SavedModel. Received: {folder}, not found.")
    if not (folder / "saved_model.pb").is_file():
        raise ValueError(
            f"`folder` must be a SavedModel. Received: {source}, without saved_model.pb"
        )
    with reading(source):
        check_whole(folder / "saved_model.pb")
        saved_model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        if not saved_model.meta_graphs:
            raise ValueError("saved_model.pb holds no graph")
    return saved_model.meta_graphs


def reading(source: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """Turns what TensorFlow raises over damaged files into a ValueError that names `source`."""
    return wrap_read_errors(source, "`source` must be a whole SavedModel")


class ModuleFunction:
    """The function of a SavedModel from images to features or logits, on the CPU.

    `shape` is the (batch, height, width, 3) that it takes, with `None` for what it leaves open.
    Errors name `source`.
    """

    def __init__(self, folder: str | os.PathLike, source: str | os.PathLike | None = None) -> None:
        import tensorflow as tf

        self._source = source = folder if source is None else source
        self._outputs: dict[tuple[int, int], list[np.ndarray]] = {}
        graphs = meta_graphs(pathlib.Path(folder), source)
        tags = [list(graph.meta_info_def.tags) for graph in graphs]
        tags.sort(key=lambda tags: "train" in tags)  # a second graph of modules of TensorFlow 1
        with reading(source), tf.device("/CPU:0"):
            self._module = tf.saved_model.load(str(folder), tags=tags[0])
        functions = list(_functions_of_images(self._module))
        if not functions:
            raise ValueError(
                "The SavedModel must have a function of images (n, height, width, 3), called "
                f"itself or as a signature. Received: {source}, without one."
            )
        self.shape, self._call = min(functions, key=lambda function: None not in function[0][1:3])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns features or logits (n, outputs) of images (n, height, width, 3) in [0, 1]."""
        import tensorflow as tf

        images = np.asarray(images, "float32")
        if not tf.TensorShape(self.shape).is_compatible_with(images.shape):
            raise ValueError(
                f"`images` must have the shape that the module {self._source} takes, {self.shape}. "
                f"Received: images of shape {images.shape}"
            )
        with reading(self._source), tf.device("/CPU:0"):
            outputs = self._call(tf.constant(images))
        return _one_vector_per_image(outputs, len(images), self._source)

    def difference(self, network: Callable[[np.ndarray], np.ndarray]) -> float:
        """Returns the largest difference from a network, over the module's largest output.

        Both compute seeded images of 64x64 and of 75x50 pixels, or of the size that the module
        demands. The network takes them in [0, 1], the module in [0, 1] or else in [-1, 1]: what it
        expects is not told. A ValueError tells of other shapes, and of outputs that are the same
        for all.
        """
        outputs = [np.asarray(network(images)) for images in self._probes]
        differences = []
        for value_range in _RANGES:
            pairs = zip(outputs, self._expected(value_range), strict=True)
            differences.append(float(np.max([_difference(*pair) for pair in pairs])))
            if differences[-1] <= TOLERANCE:
                break
        return min(differences)

    def _expected(self, value_range):
        if value_range not in self._outputs:
            low, high = value_range
            rescaled = [low + (high - low) * images for images in self._probes]
            self._outputs[value_range] = [self(images) for images in rescaled]
        return self._outputs[value_range]

    @functools.cached_property
    def _probes(self):
        """Images, noise and waves in turn."""
        rng = np.random.default_rng(0)
        count, *size = self.shape[:3]
        probes = []
        for standard in ((64, 64), (75, 50)) if None in size else (size,):
            height, width = (own or other for own, other in zip(size, standard, strict=True))
            images = rng.uniform(0, 1, (count or 2, height, width, 3))
            rows, columns = np.ogrid[:height, :width]
            waves = 0.5 + 0.5 * np.sin(rows / 5 + columns / 3)
            images[1::2] = 0.3 * images[1::2] + 0.7 * waves[..., None]
            probes.append(images.astype("float32"))
        return probes


def _difference(outputs, expected):
    if outputs.shape != expected.shape:
        raise ValueError(
            "`network` must give what the module gives, features or logits. Received: outputs "
            f"of shape {outputs.shape}, where the module's have {expected.shape}"
        )
    largest = np.abs(expected).max()
    if not np.ptp(expected, axis=0).max() > TOLERANCE * largest and len(expected) > 1:
        raise ValueError(
            "The module must give different outputs for different images, or nothing can be "
            f"compared. Received: outputs of at most {largest:g}, the same for all images."
        )
    return np.abs(outputs - expected).max() / largest


def _functions_of_images(module):
    """Yields the shapes of images and the functions of a module, its own call before signatures."""
    call = module.__call__ if callable(module) else None
    for concrete in getattr(call, "concrete_functions", ()):
        yield from _function_of_images(call, *concrete.structured_input_signature)
    named = getattr(module, "signatures", {})
    for name in sorted(named, key=lambda name: name not in ("serving_default", "default")):
        yield from _function_of_images(named[name], *named[name].structured_input_signature)


def _function_of_images(function, arguments, options):
    """Yields the shape of images and the function of them alone, where there is one.

    Other arguments keep the value with which they were traced; `training` is off.
    """
    import tensorflow as tf

    given = [*arguments, *options.values()]
    tensors = [argument for argument in given if isinstance(argument, tf.TensorSpec)]
    if len(tensors) != 1 or any(argument is True for argument in given):
        return
    [images] = tensors
    shape = images.shape
    if images.dtype != tf.float32 or shape.rank != 4 or shape[3] not in (None, 3):
        return

    def call(batch):
        positional = [batch if argument is images else argument for argument in arguments]
        named = {name: batch if value is images else value for name, value in options.items()}
        return function(*positional, **named)

    yield (*shape[:3], 3), call


def _one_vector_per_image(outputs, count, source):
    """The features or logits among a function's outputs, as an array (count, outputs)."""
    import tensorflow as tf

    if isinstance(outputs, dict):
        outputs = outputs.get("default", outputs.get("logits", outputs))
    arrays = [np.asarray(output) for output in tf.nest.flatten(outputs)]
    vectors = [a.reshape(count, -1) for a in arrays if a.ndim == 2 or a.shape[1:3] == (1, 1)]
    if len(vectors) != 1:
        raise ValueError(
            "The module's function must give one vector for each image, features or logits. "
            f"Received: {source}, which gives arrays of shapes {[a.shape for a in arrays]}"
        )
    return vectors[0]
