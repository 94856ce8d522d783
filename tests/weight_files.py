"""Files of weights for the tests: random arrays in the layout of the authors' npz files."""

import functools

import numpy as np

from keras_bit import BiTBackbone
from keras_bit.weights import StoredArray, WeightArrays

SMALL = {"depth": (1, 1, 1, 1), "width": 0.25}
ROOT = "root_block/standardized_conv2d/kernel"


@functools.cache
def shapes_of(depth, width):
    return BiTBackbone(depth, width).weight_shapes()


def random_arrays(rng, depth=SMALL["depth"], width=SMALL["width"]):
    """Arrays of a network, under the names of `BiTBackbone.named_weights`."""
    return {
        name: rng.normal(1 if name.endswith("gamma") else 0, 0.3, shape).astype("float32")
        for name, shape in shapes_of(depth, width).items()
    }


def released(arrays, name_of=lambda name, number: f"resnet/{name}", head=True):
    """The same arrays as the authors store them: other names, norms of rank 4, and a head."""
    stored = {}
    for number, (name, array) in enumerate(arrays.items()):
        is_norm = name.endswith(("gamma", "beta"))
        stored[name_of(name, number)] = array.reshape(1, 1, 1, -1) if is_norm else array
    if head:
        features = arrays["group_norm/gamma"].size
        stored[name_of("head/conv2d/kernel", 900)] = np.ones((1, 1, features, 7), "float32")
        stored[name_of("head/conv2d/bias", 901)] = np.ones(7, "float32")
    return stored


def numbered(name, number):
    """As in the files whose layers were numbered through: `standardized_conv2d_17`."""
    for layer in ("standardized_conv2d", "group_norm", "conv2d"):
        if f"/{layer}/" in f"/{name}":
            return f"resnet/{name.replace(f'{layer}/', f'{layer}_{number}/')}"
    raise AssertionError(name)


def save_npz(path, arrays, **options):
    np.savez(path, **released(arrays, **options))
    return path


def as_weight_arrays(arrays, source="a test", **options):
    """Arrays in memory as what readers of files return."""
    stored = {n: StoredArray(a.shape, lambda array=a: array) for n, a in arrays.items()}
    return WeightArrays(source, stored, **options)


def assert_equal_arrays(read, arrays):
    """That `WeightArrays` have the names, shapes and values of arrays, and no others."""
    assert read.shapes == {name: array.shape for name, array in arrays.items()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
