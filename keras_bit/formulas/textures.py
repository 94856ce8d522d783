"""Textures: sums of waves through a nonlinearity, in a few colours.

Random fields of a given spectrum are the second of the image models in Baradad et al., "Learning
to See by Looking at Noise" (NeurIPS 2021); ridges, stripes and patches are what Perlin's textures
("An Image Synthesizer", SIGGRAPH 1985) make of them.
"""

import numpy as np
from keras import ops

from keras_bit.formulas import draws
from keras_bit.formulas.fields import painted, waves

WAVES = 24
KINDS = 4


def classes(random, count):
    """What makes a texture: spectrum, direction, nonlinearity and colours."""
    return {
        "slope": random.uniform(0.6, 2.0, count),
        "lowest": np.exp(random.uniform(np.log(0.7), np.log(4.0), count)),
        "octaves": random.uniform(0.8, 3.5, count),
        "angle": random.uniform(0, np.pi, count),
        "spread": np.exp(random.uniform(np.log(0.05), np.log(2.0), count)),
        "kind": random.randint(0, KINDS, count),
        "strength": np.exp(random.uniform(np.log(1.5), np.log(6.0), count)),
        "colours": draws.colours(random, count, 3),
    }


def draw(random, rows):
    """The parameters of one picture for each row of `classes`."""
    count = len(rows["slope"])
    zoom = np.exp(random.normal(0, 0.15, count))
    lowest = rows["lowest"] * zoom
    spectrum = {
        "slope": rows["slope"],
        "lowest": lowest,
        "highest": lowest * 2 ** rows["octaves"],
        "angle": rows["angle"] + random.normal(0, 0.15, count),
        "spread": rows["spread"],
        "waves": WAVES,
    }
    calm = {**spectrum, "lowest": np.full(count, 0.3), "highest": np.full(count, 2.0)}
    return {
        "field": draws.spectrum(random, **spectrum),
        "tint": draws.spectrum(random, **{**calm, "spread": np.full(count, 2.0)}),
        "kind": np.eye(KINDS, dtype="float32")[rows["kind"]],
        "strength": rows["strength"].astype("float32"),
        "colours": draws.jittered(random, rows["colours"], 0.08),
    }


def render(parameters, size):
    """Images (batch, size, size, 3)."""
    field = waves(size, **parameters["field"])
    strength = parameters["strength"][:, None, None]
    kind = parameters["kind"][:, :, None, None]
    clouds = 0.5 + 0.25 * field
    ridges = 1.0 - ops.abs(field)
    stripes = 0.5 + 0.5 * ops.sin(strength * field)
    patches = ops.sigmoid(4.0 * strength * field)
    shapes = (clouds, ridges, stripes, patches)
    amount = sum(kind[:, index] * shape for index, shape in enumerate(shapes))
    tint = 0.5 + 0.25 * waves(size, **parameters["tint"])
    return painted(parameters["colours"], amount, tint)
