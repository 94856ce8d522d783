"""Closed contours: a radius that oscillates around a center, drawn as nested lines or filled.

Sums of sine waves on circles are the visual atoms of Takashima et al., "Visual Atoms: Pre-training
Vision Transformers with Sinusoidal Waves" (CVPR 2023).
"""

import numpy as np
from keras import ops

from keras_bit.pretraining.families import draws, fields

HARMONICS = 4
WAVES = ("order", "size", "phase")


def classes(random: np.random.RandomState, count: int) -> dict:
    order = np.stack([random.choice(10, HARMONICS, replace=False) + 1 for _ in range(count)])
    size = np.exp(random.uniform(np.log(0.08), np.log(0.5), (count, HARMONICS)))
    return {
        "order": order.astype("float32"),
        "size": size * np.minimum(1.0, 2.0 / order),
        "phase": random.uniform(0, 2 * np.pi, (count, HARMONICS)),
        "lines": random.randint(1, 7, count).astype("float32"),
        "width": random.uniform(0.15, 0.6, count).astype("float32"),
    }


def draw_shape(random: np.random.RandomState, rows: dict) -> dict:
    """Draws a `shape` for `signed_depth`: the waves of the classes, jittered."""
    size = rows["size"] * np.exp(random.normal(0, 0.1, rows["size"].shape))
    phase = draws.jitter(random, rows["phase"], 0.12)
    return {"order": rows["order"], "size": size.astype("float32"), "phase": phase}


def draw(random: np.random.RandomState, rows: dict) -> dict:
    count = len(rows["lines"])
    return {
        "shape": draw_shape(random, rows),
        "view": draws.views(random, count),
        "lines": rows["lines"],
        "width": rows["width"],
        "colors": draws.colors(random, count, 2),
    }


def signed_depth(shape: dict, x, y):
    """Returns how far inside the contour points lie: 1 at the center, 0 on it, negative outside."""
    radius, angle = ops.sqrt(x * x + y * y + 1e-6), ops.arctan2(y, x)
    waves = 0.0
    for index in range(HARMONICS):
        order, size, phase = (shape[name][:, index, None, None] for name in WAVES)
        waves = waves + size * ops.cos(order * angle + phase)
    return 1.0 - radius * ops.exp(-waves)


def render(parameters: dict, size: int):
    view = parameters["view"]
    depth = signed_depth(parameters["shape"], *fields.coordinates(size, view))
    lines, width = (parameters[name][:, None, None] for name in ("lines", "width"))
    # One line lies between every two whole numbers from 0, the contour, to `lines`, the center.
    scaled = depth * lines
    distance = ops.abs(scaled - ops.floor(scaled) - 0.5)
    line = fields.soft_mask((width / 2 - distance) / lines, size, view)
    return fields.blend(parameters["colors"], line * fields.soft_mask(depth, size, view))
