"""Features and gradients of one network, for Keras's backends side by side.

`python -m tests.backends NETWORK FOLDER DTYPE...` writes those of the backend in KERAS_BACKEND.
"""

import pathlib
import sys

import keras
import numpy as np
from keras import ops

from keras_bit import BiTBackbone
from tests.autodiff import gradients
from tests.conftest import as_numpy

# Depth, width, edge and number of the images.
NETWORKS = {"small": ((1, 1, 1, 1), 0.25, 32, 2), "r50x1": (50, 1, 64, 2)}
# With it no value before a ReLU of the small network lies within 1e-4 of 0, nor do the two largest
# of a max pooling: rounding sends no gradient another way.
IMAGE_SEED = 52
OUTPUTS = 5
GROUPS = ("kernels", "gammas", "betas", "images")


def make_images(network):
    _, _, edge, count = NETWORKS[network]
    return np.random.default_rng(IMAGE_SEED).uniform(0, 1, (count, edge, edge, 3))


def make_backbone(network, dtype="float32"):
    """The backbone, with weights that are the same on every backend."""
    depth, width, *_ = NETWORKS[network]
    backbone = BiTBackbone(depth, width, pooling=None, dtype=dtype)
    rng = np.random.default_rng(0)
    for name, variable in sorted(backbone.named_weights().items()):
        variable.assign(rng.normal(1.0 if name.endswith("gamma") else 0.0, 0.3, variable.shape))
    return backbone


def compute(network, dtype):
    """The feature maps, and gradients of a squared error by `group/name`, as arrays."""
    backbone, images = make_backbone(network, dtype), make_images(network).astype(dtype)
    features = as_numpy(backbone(images))
    rng = np.random.default_rng(2)
    kernel = rng.normal(0, 0.1, (features.shape[-1], OUTPUTS)).astype(dtype)
    targets = np.eye(len(images), OUTPUTS, dtype=dtype)

    def loss(images, *weights):
        maps, _ = backbone.stateless_call(weights, [], images)
        # Not `ops.mean` and `ops.matmul`, which on PyTorch make float32 of float64.
        pooled = ops.sum(maps, axis=(1, 2)) / (features.shape[1] * features.shape[2])
        outputs = pooled @ ops.convert_to_tensor(kernel)
        return ops.sum(ops.square(outputs - ops.convert_to_tensor(targets)))

    weights = [as_numpy(variable) for variable in backbone.trainable_variables]
    of_images, *of_weights = gradients(loss, (images, *weights), compiled=True)
    paths = {id(variable): name for name, variable in backbone.named_weights().items()}
    names = [paths[id(variable)] for variable in backbone.trainable_variables]
    found = {f"{n.rpartition('/')[2]}s/{n}": g for n, g in zip(names, of_weights, strict=True)}
    return {"features": features, "images/images": of_images, **found}


def differences(found, exact):
    """How far off each group is: the largest relative error of an array of it, in the L2 norm."""
    errors = {"features": [], **{group: [] for group in GROUPS}}
    for name, array in exact.items():
        error = np.linalg.norm(found[name] - array) / np.linalg.norm(array)
        errors[name.partition("/")[0]].append(error)
    return {group: max(values) for group, values in errors.items()}


def write(network, folder, dtypes):
    """Writes what `compute` returns to `BACKEND-DTYPE.npz` in the folder."""
    for dtype in dtypes:
        path = pathlib.Path(folder) / f"{keras.backend.backend()}-{dtype}.npz"
        np.savez(path, **compute(network, dtype))


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], sys.argv[3:])
