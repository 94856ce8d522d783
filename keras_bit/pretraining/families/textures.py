"""Textures: sums of waves through a nonlinearity, in a few colors.

Random fields of a given spectrum are the second of the image models in Baradad et al., "Learning
to See by Looking at Noise" (NeurIPS 2021); ridges, stripes and patches are what Perlin's textures
("An Image Synthesizer", SIGGRAPH 1985) make of them.
"""

import numpy as np
from keras import ops

from keras_bit.pretraining.families import draws, fields

WAVES = 24
KINDS = 4


def classes(random: np.random.RandomState, count: int) -> dict:
    return {
        "slope": random.uniform(0.6, 2.0, count),
        "lowest": np.exp(random.uniform(np.log(0.7), np.log(4.0), count)),
        "octaves": random.uniform(0.8, 3.5, count),
        "angle": random.uniform(0, np.pi, count),
        "spread": np.exp(random.uniform(np.log(0.05), np.log(2.0), count)),
        "kind": random.randint(0, KINDS, count),
        "strength": np.exp(random.uniform(np.log(1.5), np.log(6.0), count)),
        "colors": draws.colors(random, count, 3),
    }


def draw(random: np.random.RandomState, rows: dict) -> dict:
    count, slope = len(rows["slope"]), rows["slope"]
    low = rows["lowest"] * np.exp(random.normal(0, 0.15, count))
    high = low * 2 ** rows["octaves"]
    angle = rows["angle"] + random.normal(0, 0.15, count)
    return {
        "field": draws.spectrum(random, count, WAVES, low, high, slope, angle, rows["spread"]),
        "tint": draws.spectrum(random, count, WAVES, 0.3, 2.0, slope, angle),
        "kind": np.eye(KINDS, dtype="float32")[rows["kind"]],
        "strength": rows["strength"].astype("float32"),
        "colors": draws.jitter(random, rows["colors"], 0.08),
    }


def render(parameters: dict, size: int):
    field, tint = (fields.plane_waves(size, **parameters[name]) for name in ("field", "tint"))
    strength = parameters["strength"][:, None, None]
    kind = parameters["kind"][:, :, None, None]
    clouds, ridges = 0.5 + 0.25 * field, 1.0 - ops.abs(field)
    stripes = 0.5 + 0.5 * ops.sin(strength * field)
    patches = ops.sigmoid(4.0 * strength * field)
    shapes = (clouds, ridges, stripes, patches)
    amount = sum(kind[:, index] * shape for index, shape in enumerate(shapes))
    return fields.blend(parameters["colors"], amount, 0.5 + 0.25 * tint)
