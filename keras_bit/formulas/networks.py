"""Patterns from small random coordinate networks.

Stanley, "Compositional pattern producing networks" (2007): a network that maps a place to a
colour. Short programs of that kind are the best of the procedural images in Baradad et al.,
"Procedural Image Programs for Representation Learning" (NeurIPS 2022). The weights are the class.
"""

import numpy as np
from keras import ops

from keras_bit.formulas import draws
from keras_bit.formulas.fields import painted, plane

UNITS = 8
LAYERS = 2
INPUTS = 4


def classes(random, count):
    """What makes a pattern: the weights of the network."""
    inputs = (INPUTS, *[UNITS] * LAYERS)
    outputs = (*[UNITS] * LAYERS, 2)
    gain = np.exp(random.uniform(np.log(1.5), np.log(4.0), (count, 1, 1)))
    return {
        "kernels": [
            gain * random.normal(0, 1 / np.sqrt(rows), (count, rows, columns))
            for rows, columns in zip(inputs, outputs, strict=True)
        ],
        "biases": [random.normal(0, 1, (count, columns)) for columns in outputs],
    }


def draw(random, rows):
    """The parameters of one picture for each row of `classes`."""
    count = len(rows["kernels"][0])
    return {
        "kernels": [draws.jittered(random, kernel, 0.05) for kernel in rows["kernels"]],
        "biases": [draws.jittered(random, bias, 0.15) for bias in rows["biases"]],
        "view": draws.views(random, count),
        "colours": draws.colours(random, count, 3),
    }


def render(parameters, size):
    """Images (batch, size, size, 3)."""
    x, y = plane(size, parameters["view"])
    features = ops.stack([x, y, ops.sqrt(x * x + y * y), x * y], axis=-1)
    features = ops.reshape(features, (-1, size * size, INPUTS))
    for kernel, bias in zip(parameters["kernels"], parameters["biases"], strict=True):
        features = ops.sin(ops.matmul(features, kernel) + bias[:, None])
    amounts = ops.reshape(0.5 + 0.5 * features, (-1, size, size, 2))
    return painted(parameters["colours"], amounts[..., 0], amounts[..., 1])
