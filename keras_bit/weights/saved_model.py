"""TensorFlow SavedModels of BiT: their arrays, and their own function to compare with.

The modules of TensorFlow Hub and Kaggle name their variables in several ways. Names that say
where an array belongs are believed. Where they do not, the order of the variables and their
shapes decide, and what these leave open is settled by comparing the network with the module's
own function: `verified`.
"""

import math
import pathlib
import re

import numpy as np

from keras_bit.weights.arrays import StoredArray, WeightArrays
from keras_bit.weights.module_function import (
    TOLERANCE,
    ModuleFunction,
    difference_of,
    meta_graphs,
    probes_of,
    reading_saved_model,
)
from keras_bit.weights.structure import Variable, find_readings, natural

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SLOT = re.compile(r"\.OPTIMIZER_SLOT|/(Momentum|Adam|RMSProp|Adagrad|ExponentialMovingAverage)")


def read_saved_model(folder):
    """Reads the arrays of a BiT module by name, else by structure and shape.

    Args:
        folder: A SavedModel, with `saved_model.pb` and `variables`; of TensorFlow 2, or of
            TensorFlow 1 with signatures.

    Returns:
        `WeightArrays`; the likeliest of `saved_model_readings`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no whole SavedModel, or its variables fit no BiT network.
    """
    return saved_model_readings(folder)[0]


def saved_model_readings(folder):
    """Returns every reading of the variables that fits a BiT network, the likeliest first.

    There is one where the names decide. Without names, gammas and betas are told apart by their
    means alone, and either way is a reading.

    Args, raises: As `read_saved_model`.

    Returns:
        A list of `WeightArrays`.
    """
    folder = pathlib.Path(folder)
    meta_graphs(folder)
    checkpoint = _Checkpoint(folder)
    readings = find_readings(checkpoint.variables, checkpoint.mean)
    if not readings:
        examples = [f"{v.name} {v.shape}" for v in checkpoint.variables[:3]]
        raise ValueError(
            "The SavedModel must hold a BiT network. Received: "
            f"{folder} with {len(checkpoint.variables)} variables that fit none, neither by name "
            f"nor by order and shape, {examples} among them."
        )
    return [checkpoint.weight_arrays(reading) for reading in readings]


def probe(folder, images):
    """Returns what a module's own function gives for images, computed on the CPU.

    Args:
        folder: As for `read_saved_model`.
        images: Float32 array (n, height, width, 3) in [0, 1].

    Returns:
        Array (n, outputs): features or logits, as the module has it.

    Raises:
        FileNotFoundError, ValueError: If it cannot be loaded, has no function of images, takes
            images of another size, or gives anything but one vector for each image.
    """
    return ModuleFunction(folder)(images)


def check_against_module(folder, network, images=None):
    """Compares a network with the module whose weights it has.

    Args:
        folder: As for `read_saved_model`.
        network: Function from images (n, height, width, 3) in [0, 1] to what the module gives,
            features or logits.
        images: Images to compare with; by default seeded ones of 64x64 and of 75x50 pixels, or of
            the size that the module demands.

    Returns:
        The largest difference in proportion to the largest output.

    Raises:
        FileNotFoundError, ValueError: As `probe`; or if they differ by more than 1e-4.
    """
    difference = difference_of(network, probes_of(folder, images))
    if not difference <= TOLERANCE:
        raise ValueError(
            "The network must equal the module's own function within "
            f"{TOLERANCE:g} of the largest output. Received: {folder}, from which it differs by "
            f"{difference:.3g}. Its variables were read into the wrong places, or it is not a "
            "BiT network."
        )
    return difference


def verified(folder, build, images=None):
    """Returns the arrays of the first reading whose network equals the module's own function.

    Args:
        folder: As for `read_saved_model`.
        build: Function from `WeightArrays` to a network, which can be called as in
            `check_against_module`.
        images: As in `check_against_module`.

    Returns:
        `WeightArrays`.

    Raises:
        FileNotFoundError, ValueError: As `probe` and `read_saved_model`; or if the network of no
            reading is within 1e-4 of the module.
    """
    readings = saved_model_readings(folder)
    probes = probes_of(folder, images)
    differences = []
    for arrays in readings:
        differences.append(difference_of(build(arrays), probes))
        if differences[-1] <= TOLERANCE:
            return arrays
    raise ValueError(
        "The network must equal the module's own function within "
        f"{TOLERANCE:g} of the largest output. Received: {folder}, whose variables can be read in "
        f"{len(readings)} way(s), which differ from it by "
        f"{', '.join(f'{difference:.3g}' for difference in differences)}. Which variable belongs "
        "where cannot be decided; use the authors' npz file of this network."
    )


class _Checkpoint:
    """The variables of a SavedModel; arrays are read from it one by one."""

    def __init__(self, folder):
        import tensorflow as tf

        self._folder = folder
        prefix = folder / "variables" / "variables"
        with reading_saved_model(folder):
            if not prefix.with_suffix(".index").is_file():
                raise ValueError("variables/variables.index is missing")
            self._reader = tf.train.load_checkpoint(str(prefix))
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
            _check_room(prefix, shapes, dtypes)
            names = self._names_and_nodes()
        self.variables = [
            Variable(key, *names.get(key, (key, 0)), tuple(shapes[key]))
            for key in sorted(shapes, key=natural)
            if dtypes[key].is_floating and shapes[key] and not _SLOT.search(key)
        ]

    def weight_arrays(self, named):
        """`WeightArrays` of a dict from name to variable."""
        stored = {}
        for name, variable in named.items():
            shape = _network_shape(name, variable.shape)
            stored[name] = StoredArray(shape, self._loader(variable.key, shape))
        return WeightArrays(self._folder, stored, folder=self._folder)

    def mean(self, variables):
        """The mean over all values of variables."""
        return np.mean([self._loader(v.key, -1)().mean(dtype="float64") for v in variables])

    def _loader(self, key, shape):
        def load():
            with reading_saved_model(self._folder):
                return self._reader.get_tensor(key).reshape(shape)

        return load

    def _names_and_nodes(self):
        """Each key's name and place in the object graph; without one the keys are the names."""
        from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

        if not self._reader.has_tensor(_GRAPH):
            return {}
        graph = TrackableObjectGraph.FromString(self._reader.get_tensor(_GRAPH))
        return {
            attribute.checkpoint_key: (attribute.full_name, index)
            for index, node in enumerate(graph.nodes)
            for attribute in node.attributes
        }


def _check_room(prefix, shapes, dtypes):
    """Raises where shards are missing, or too small for what the index declares."""
    shards = list(prefix.parent.glob(f"{prefix.name}.data-*-of-*"))
    totals = {int(shard.name.rpartition("-")[2]) for shard in shards}
    if totals != {len(shards)}:
        raise ValueError("not all of its files variables/variables.data-*-of-* are there")
    declared = sum(
        math.prod(shape) * dtypes[key].size
        for key, shape in shapes.items()
        if dtypes[key].is_floating or dtypes[key].is_integer
    )
    room = sum(shard.stat().st_size for shard in shards)
    if declared > room:
        raise ValueError(f"its variables take {declared} bytes, of which {room} are there")


def _network_shape(name, shape):
    """Gamma, beta and bias are flat; the head's kernel may be a 1x1 convolution's."""
    if name.endswith(("gamma", "beta", "bias")):
        return (math.prod(shape),)
    return shape[-2:] if name == "head/kernel" else shape
