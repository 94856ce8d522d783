"""What a SavedModel of BiT computes itself, to compare a network with."""

import contextlib
import pathlib

import numpy as np

from keras_bit.files import reading

TOLERANCE = 1e-4


def meta_graphs(folder):
    """The graphs of a SavedModel, after looking whether it is one."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a SavedModel. Received: {folder}, not found.")
    if not (folder / "saved_model.pb").is_file():
        raise ValueError(
            f"`folder` must be a SavedModel. Received: {folder}, without saved_model.pb"
        )
    with reading_saved_model(folder):
        saved_model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        if not saved_model.meta_graphs:
            raise ValueError("saved_model.pb holds no graph")
    return saved_model.meta_graphs


@contextlib.contextmanager
def reading_saved_model(folder):
    """Turns what TensorFlow raises over damaged files into a ValueError that names the folder."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    with reading(folder, "a whole SavedModel"):
        try:
            yield
        except (tf.errors.OpError, DecodeError) as error:
            raise ValueError(str(error)) from error


class ModuleFunction:
    """The function of a loaded module from images to features or logits, on the CPU.

    Attributes:
        shape: (batch, height, width, 3) that it takes; `None` where it takes any.
    """

    def __init__(self, folder):
        import tensorflow as tf

        self._folder = folder
        graphs = meta_graphs(pathlib.Path(folder))
        tags = [list(graph.meta_info_def.tags) for graph in graphs]
        with reading_saved_model(folder), tf.device("/CPU:0"):
            # Modules of TensorFlow 1 have a second graph for training.
            self._module = tf.saved_model.load(
                str(folder), tags=None if len(tags) == 1 else min(tags, key=lambda t: "train" in t)
            )
        functions = list(_functions_of_images(self._module))
        if not functions:
            raise ValueError(
                "The SavedModel must have a function of images (n, height, width, 3), called "
                f"itself or as a signature. Received: {folder}, without one."
            )
        self.shape, self._call = min(functions, key=lambda function: None not in function[0][1:3])

    def __call__(self, images):
        import tensorflow as tf

        images = np.asarray(images, "float32")
        if images.ndim != 4 or any(
            size not in (None, given) for size, given in zip(self.shape, images.shape, strict=True)
        ):
            raise ValueError(
                f"`images` must have the shape that the module {self._folder} takes, {self.shape}. "
                f"Received: images of shape {images.shape}"
            )
        with reading_saved_model(self._folder), tf.device("/CPU:0"):
            outputs = self._call(tf.constant(images))
        return _one_vector_per_image(outputs, len(images), self._folder)


def _functions_of_images(module):
    """Yields the shapes of images and the functions of a module, its own call before signatures."""
    call = module.__call__ if callable(module) else None
    for concrete in getattr(call, "concrete_functions", ()):
        yield from _function_of_images(call, *concrete.structured_input_signature)
    named = dict(getattr(module, "signatures", {}))
    for name in sorted(named, key=lambda name: name not in ("serving_default", "default")):
        yield from _function_of_images(named[name], *named[name].structured_input_signature)


def _function_of_images(function, arguments, options):
    """Yields the shape of images and the function of them alone, where there is one.

    Other arguments keep the value with which they were traced; `training` is off.
    """
    import tensorflow as tf

    def is_images(argument):
        if not isinstance(argument, tf.TensorSpec) or argument.shape.rank != 4:
            return False
        return argument.dtype == tf.float32 and argument.shape[3] in (None, 3)

    given = [*arguments, *options.values()]
    images = [argument for argument in given if is_images(argument)]
    unknown = [a for a in given if isinstance(a, tf.TensorSpec) and not is_images(a)]
    if len(images) != 1 or unknown or any(argument is True for argument in given):
        return

    def call(batch):
        positional = [batch if is_images(argument) else argument for argument in arguments]
        named = {name: batch if is_images(a) else a for name, a in options.items()}
        return function(*positional, **named)

    yield (*images[0].shape[:3], 3), call


def _one_vector_per_image(outputs, count, folder):
    """The features or logits among a function's outputs, as an array (count, outputs)."""
    import tensorflow as tf

    if isinstance(outputs, dict):
        outputs = outputs.get("default", outputs.get("logits", outputs))
    arrays = [np.asarray(output) for output in tf.nest.flatten(outputs)]
    vectors = [a.reshape(count, -1) for a in arrays if a.ndim == 2 or a.shape[1:3] == (1, 1)]
    if len(vectors) != 1:
        raise ValueError(
            "The module's function must give one vector for each image, features or logits. "
            f"Received: {folder}, which gives arrays of shapes {[a.shape for a in arrays]}"
        )
    return vectors[0]


def probes_of(folder, images):
    """Pairs of images and the outputs that the module itself has for them."""
    function = ModuleFunction(folder)
    batches = [images] if images is not None else _batches(function.shape)
    return [(batch, function(batch)) for batch in batches]


def _batches(shape):
    """Seeded images in [0, 1], noise and waves in turn, of the sizes that a module takes."""
    rng = np.random.default_rng(0)
    count, *size = shape[:3]
    batches = []
    for standard in ((64, 64), (75, 50)) if None in size else (size,):
        height, width = (own or other for own, other in zip(size, standard, strict=True))
        images = rng.uniform(0, 1, (count or 2, height, width, 3))
        rows, columns = np.ogrid[:height, :width]
        waves = 0.5 + 0.5 * np.sin(rows / 5 + columns / 3)
        images[1::2] = 0.3 * images[1::2] + 0.7 * waves[..., None]
        batches.append(images.astype("float32"))
    return batches


def difference_of(network, probes):
    """The largest difference between network and module, over the module's largest output."""
    differences = []
    for images, expected in probes:
        outputs = np.asarray(network(images))
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
        differences.append(np.abs(outputs - expected).max() / largest)
    return max(differences)
