"""Patterns from small random coordinate networks, whose weights are the class.

Stanley, "Compositional pattern producing networks" (2007): a network that maps coordinates to a
color. Short programs of that kind are the best of the procedural images in Baradad et al.,
"Procedural Image Programs for Representation Learning" (NeurIPS 2022).
"""

from itertools import pairwise

import numpy as np
from keras import ops

from keras_bit.pretraining.families import draws, fields

UNITS = (4, 8, 8, 2)  # of the inputs and of each layer


def classes(random: np.random.RandomState, count: int) -> dict:
    gain = np.exp(random.uniform(np.log(1.5), np.log(4.0), (count, 1, 1)))
    kernels = [gain * random.normal(0, 1 / np.sqrt(m), (count, m, n)) for m, n in pairwise(UNITS)]
    return {"kernels": kernels, "biases": [random.normal(0, 1, (count, n)) for n in UNITS[1:]]}


def draw(random: np.random.RandomState, rows: dict) -> dict:
    count = len(rows["kernels"][0])
    return {
        "kernels": [draws.jitter(random, kernel, 0.05) for kernel in rows["kernels"]],
        "biases": [draws.jitter(random, bias, 0.15) for bias in rows["biases"]],
        "view": draws.views(random, count),
        "colors": draws.colors(random, count, 3),
    }


def render(parameters: dict, size: int):
    x, y = fields.coordinates(size, parameters["view"])
    features = ops.stack([x, y, ops.sqrt(x * x + y * y), x * y], axis=-1)
    features = ops.reshape(features, (-1, size * size, UNITS[0]))
    for kernel, bias in zip(parameters["kernels"], parameters["biases"], strict=True):
        features = ops.sin(ops.matmul(features, kernel) + bias[:, None])
    amounts = ops.reshape(0.5 + 0.5 * features, (-1, size, size, 2))
    return fields.blend(parameters["colors"], amounts[..., 0], amounts[..., 1])
