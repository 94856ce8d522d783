"""Closed contours: a radius that waves around a centre, drawn as nested lines or as a figure.

Sums of sine waves on circles are the visual atoms of Takashima et al., "Visual Atoms: Pre-training
Vision Transformers with Sinusoidal Waves" (CVPR 2023).
"""

import numpy as np
from keras import ops

from keras_bit.formulas import draws
from keras_bit.formulas.fields import inside, over, painted, plane

HARMONICS = 4


def classes(random, count):
    """What makes a contour: its waves, and the number and width of the lines."""
    order = np.stack([random.choice(10, HARMONICS, replace=False) + 1 for _ in range(count)])
    size = np.exp(random.uniform(np.log(0.08), np.log(0.5), (count, HARMONICS)))
    return {
        "order": order.astype("float32"),
        "size": size * np.minimum(1.0, 2.0 / order),
        "phase": random.uniform(0, 2 * np.pi, (count, HARMONICS)),
        "lines": random.randint(1, 7, count).astype("float32"),
        "width": random.uniform(0.15, 0.6, count).astype("float32"),
    }


def draw_shape(random, rows):
    """The parameters of `log_radius`, with a little of one's own for every picture."""
    return {
        "order": rows["order"],
        "size": (rows["size"] * np.exp(random.normal(0, 0.1, rows["size"].shape))).astype(
            "float32"
        ),
        "phase": draws.jittered(random, rows["phase"], 0.12),
    }


def draw(random, rows):
    """The parameters of one picture for each row of `classes`."""
    count = len(rows["lines"])
    return {
        "shape": draw_shape(random, rows),
        "view": draws.views(random, count),
        "lines": rows["lines"],
        "width": rows["width"],
        "colours": draws.colours(random, count, 2),
    }


def log_radius(shape, angle):
    """Logarithm of the radius at `angle` (batch, size, size) around the centre."""
    total = 0.0
    for index in range(HARMONICS):
        order, size, phase = (
            shape[name][:, index, None, None] for name in ("order", "size", "phase")
        )
        total = total + size * ops.cos(order * angle + phase)
    return total


def depth(shape, x, y):
    """How far inside of the contour a point lies: 1 at the centre, 0 on it, then negative."""
    radius = ops.sqrt(x * x + y * y + 1e-6)
    return 1.0 - radius * ops.exp(-log_radius(shape, ops.arctan2(y, x)))


def render(parameters, size):
    """Images (batch, size, size, 3)."""
    view = parameters["view"]
    deep = depth(parameters["shape"], *plane(size, view))
    lines, width = (parameters[name][:, None, None] for name in ("lines", "width"))
    # Between 0 on the contour and `lines` in the centre every whole number is a line's place.
    turns = deep * lines
    beside = ops.abs(turns - ops.floor(turns) - 0.5)
    line = inside((width / 2 - beside) / lines, size, view) * inside(deep, size, view)
    ground = painted(parameters["colours"][:, :1]) + ops.zeros_like(line)[..., None]
    return over(painted(parameters["colours"][:, 1:]), line, ground)
