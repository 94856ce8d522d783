"""TensorFlow SavedModels of BiT: their arrays, verified against their own function."""

import functools
import math
import os
import pathlib
import re

import numpy as np

from keras_bit.core.file_faults import check_whole
from keras_bit.weights.arrays import NetworkOf, StoredArray, WeightArrays
from keras_bit.weights.saved_model.function import (
    TOLERANCE,
    ModuleFunction,
    meta_graphs,
    reading,
)
from keras_bit.weights.saved_model.matching import Variable, find_mappings, natural

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SLOT = re.compile(r"\.OPTIMIZER_SLOT|/(Momentum|Adam|RMSProp|Adagrad|ExponentialMovingAverage)")


def read_saved_model(
    folder: str | os.PathLike,
    network: NetworkOf | None = None,
    source: str | os.PathLike | None = None,
) -> WeightArrays:
    """Reads the arrays of a module of TensorFlow 2, or of TensorFlow 1 with signatures.

    With `network`, as in `read_weights`, they are those of the first candidate mapping with which
    the network equals the module's own function within 1e-4 of the largest output; a ValueError
    tells that there is none. Without it they are those of the likeliest candidate. `source` is
    what errors name: the archive that the folder was unpacked from.
    """
    source = folder if source is None else source
    candidates = read_candidates(folder, source)
    if network is None:
        return candidates[0]
    function, differences = ModuleFunction(folder, source), []
    for arrays in candidates:
        differences.append(function.difference(network(arrays)))
        if differences[-1] <= TOLERANCE:
            return arrays
    raise ValueError(
        "The network must equal the module's own function within "
        f"{TOLERANCE:g} of the largest output. Received: {source}, whose variables can be read in "
        f"{len(candidates)} way(s), which differ from it by "
        f"{', '.join(f'{difference:.3g}' for difference in differences)}. Which variable belongs "
        "where cannot be decided; use the authors' npz file of this network."
    )


def read_candidates(
    folder: str | os.PathLike, source: str | os.PathLike | None = None
) -> list[WeightArrays]:
    """Returns the arrays of every candidate mapping, the likeliest first.

    There is one where the names decide. Without names, gammas and betas are told apart by their
    means alone, and either way is a candidate.
    """
    folder = pathlib.Path(folder)
    source = folder if source is None else source
    meta_graphs(folder, source)
    checkpoint = _Checkpoint(folder, source)
    mappings = find_mappings(checkpoint.variables, checkpoint.mean)
    if not mappings:
        examples = [f"{v.name} {v.shape}" for v in checkpoint.variables[:3]]
        raise ValueError(
            "The SavedModel must hold a BiT network. Received: "
            f"{source} with {len(checkpoint.variables)} variables that fit none, neither by name "
            f"nor by order and shape, {examples} among them."
        )
    return [checkpoint.weight_arrays(mapping) for mapping in mappings]


class _Checkpoint:
    """The variables of a SavedModel; arrays are read from it one by one."""

    def __init__(self, folder, source):
        import tensorflow as tf

        self._source = source
        prefix = folder / "variables" / "variables"
        with reading(source):
            if not prefix.with_suffix(".index").is_file():
                raise ValueError("variables/variables.index is missing")
            check_whole(prefix.with_suffix(".index"))
            self._reader = tf.train.load_checkpoint(str(prefix))
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
            _check_room(prefix, shapes, dtypes)
            nodes = self._names_and_nodes()
        self.variables = [
            Variable(key, name, node, tuple(shapes[key]))
            for key in sorted(shapes, key=natural)
            for name, node in [nodes.get(key, (key, 0))]
            if dtypes[key].is_floating and shapes[key] and not _SLOT.search(key)
        ]

    def weight_arrays(self, mapping):
        """`WeightArrays` of a dict from name to variable."""
        stored = {}
        for name, variable in mapping.items():
            shape = variable.shape
            if name.endswith(("gamma", "beta", "bias")):
                shape = (math.prod(shape),)
            elif name == "head/kernel":  # perhaps a 1x1 convolution's
                shape = shape[-2:]
            stored[name] = StoredArray(shape, functools.partial(self._read, variable, shape))
        return WeightArrays(self._source, stored)

    def mean(self, variables):
        """The mean over all values of variables."""
        return np.mean([self._read(v, -1).mean(dtype="float64") for v in variables])

    def _read(self, variable, shape):
        with reading(self._source):
            return self._reader.get_tensor(variable.key).reshape(shape)

    def _names_and_nodes(self):
        """Each key's name and node in the object graph; without one the keys are the names."""
        from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

        if not self._reader.has_tensor(_GRAPH):
            return {}
        graph = TrackableObjectGraph.FromString(self._reader.get_tensor(_GRAPH))
        pairs = [(index, a) for index, node in enumerate(graph.nodes) for a in node.attributes]
        return {a.checkpoint_key: (a.full_name, index) for index, a in pairs}


def _check_room(prefix, shapes, dtypes):
    """Raises where shards are missing, or too small for what the index declares."""
    shards = list(prefix.parent.glob(f"{prefix.name}.data-*-of-*"))
    totals = {int(shard.name.rpartition("-")[2]) for shard in shards}
    if totals != {len(shards)}:
        raise ValueError("not all of its files variables/variables.data-*-of-* are there")
    numbers = [key for key in shapes if dtypes[key].is_floating or dtypes[key].is_integer]
    declared = sum(dtypes[key].size * math.prod(shapes[key]) for key in numbers)
    room = sum(shard.stat().st_size for shard in shards)
    if declared > room:
        raise ValueError(f"its variables take {declared} bytes, of which {room} are there")
