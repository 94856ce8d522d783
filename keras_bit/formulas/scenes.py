"""Scenes: a figure put together from rounded parts, before a ground, partly hidden.

The figure is the class; how it is turned, lit, coloured, patterned, placed and hidden is not. So a
network learns to tell shape from all else. Parts are superellipses (Barr, "Superquadrics and
angle-preserving transformations", 1981), mirrored as most things and creatures are; grounds and
patterns are those of `textures`, what hides them the leaves of Lee, Mumford & Huang (2001).
"""

import numpy as np
from keras import ops

from keras_bit.formulas import draws, textures
from keras_bit.formulas.fields import inside, over, painted, plane

PARTS = 5
HIDING = 2
LEAST_CONTRAST = 0.2


def classes(random, count):
    """What makes a figure: the places, sizes, angles and roundness of its parts."""
    shape = (count, PARTS)
    mirrored = random.uniform(0, 1, count) < 0.75
    return {
        "centre": np.clip(random.normal(0, 0.38, (*shape, 2)), -0.8, 0.8),
        "radius": np.exp(random.normal(np.log(0.32), 0.45, (*shape, 2))),
        "angle": random.uniform(0, np.pi, shape) * (random.uniform(0, 1, shape) < 0.6),
        "roundness": np.exp(random.uniform(np.log(1.2), np.log(6.0), shape)),
        "mirrored": mirrored.astype("float32"),
        "contrast": random.uniform(0, 0.5, shape) * (random.uniform(0, 1, shape) < 0.5),
    }


def draw(random, rows):
    """The parameters of one picture for each row of `classes`."""
    count = len(rows["mirrored"])
    radius = rows["radius"] * np.exp(random.normal(0, 0.08, rows["radius"].shape))
    pattern, ground = _pattern(random, count, 0.5), _pattern(random, count, 0.7)
    pattern["colours"] = _set_apart(pattern["colours"], ground["colours"])
    return {
        "centre": draws.jittered(random, rows["centre"], 0.03),
        "radius": radius.astype("float32"),
        "angle": draws.jittered(random, rows["angle"], 0.08),
        "roundness": rows["roundness"].astype("float32"),
        "mirrored": rows["mirrored"],
        "contrast": draws.jittered(random, rows["contrast"], 0.05),
        "view": draws.views(random, count, scale=(0.8, 1.5), shift=0.3),
        "light": random.normal(0, 0.12, (count, 3)).astype("float32"),
        "pattern": pattern,
        "ground": ground,
        "hiding": [_hiding(random, count) for _ in range(HIDING)],
    }


def _pattern(random, count, calmness):
    """A random texture, calmed: its colours lie nearer to one another."""
    pattern = textures.draw(random, textures.classes(random, count))
    base = pattern["colours"][:, :1]
    contrast = (1 - calmness * random.uniform(0, 1, (count, 1, 1)) ** 0.3).astype("float32")
    pattern["colours"] = base + contrast * (pattern["colours"] - base)
    return pattern


def _set_apart(colours, others):
    """`colours` made lighter or darker, so that their base differs from that of `others`."""
    difference = (colours - others)[:, :1].mean(axis=2, keepdims=True)
    missing = np.maximum(LEAST_CONTRAST - np.abs(difference), 0)
    return (colours + np.where(difference < 0, -missing, missing)).astype("float32")


def _hiding(random, count):
    """A leaf for some of the pictures, beside the middle."""
    there = random.uniform(0, 1, count) < 0.4
    angle = random.uniform(-np.pi, np.pi, count)
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1) * random.uniform(0.6, 1, (count, 1))
    return {
        "centre": place.astype("float32"),
        "radius": (there[:, None] * random.uniform(0.1, 0.4, (count, 2))).astype("float32"),
        "angle": random.uniform(0, np.pi, count).astype("float32"),
        "roundness": np.exp(random.uniform(0.2, 1.8, count)).astype("float32"),
        "colours": draws.colours(random, count, 1),
    }


def depth(part, x, y):
    """How far inside of a superellipse a point lies: 1 in its middle, 0 on its border.

    Args:
        part: A dict of `centre` and `radius` (batch, 2), `angle` and `roundness` (batch,).
        x: Floats (batch, size, size).
        y: Floats (batch, size, size).
    """
    centre, radius = (part[name][:, :, None, None] for name in ("centre", "radius"))
    angle, roundness = (part[name][:, None, None] for name in ("angle", "roundness"))
    x, y = x - centre[:, 0], y - centre[:, 1]
    cosine, sine = ops.cos(angle), ops.sin(angle)
    along = ops.abs(cosine * x + sine * y) / (radius[:, 0] + 1e-6) + 1e-6
    across = ops.abs(cosine * y - sine * x) / (radius[:, 1] + 1e-6) + 1e-6
    total = ops.exp(roundness * ops.log(along)) + ops.exp(roundness * ops.log(across))
    return 1.0 - ops.exp(ops.log(total) / roundness)


def render(parameters, size):
    """Images (batch, size, size, 3)."""
    view = parameters["view"]
    x, y = plane(size, view)
    mirrored = parameters["mirrored"][:, None, None]
    x = mirrored * ops.abs(x) + (1 - mirrored) * x
    pattern = textures.render(parameters["pattern"], size)
    image = textures.render(parameters["ground"], size)
    light, contrast = (parameters[name][:, :, None, None] for name in ("light", "contrast"))
    slope = light[:, 0] * x + light[:, 1] * y
    for index in range(PARTS):
        names = ("centre", "radius", "angle", "roundness")
        part = {name: parameters[name][:, index] for name in names}
        deep = depth(part, x, y)
        least = ops.min(part["radius"], axis=1)[:, None, None]
        bulge = (light[:, 2] + 0.15) * ops.clip(deep, 0.0, 0.5)
        shade = slope + bulge - contrast[:, index]
        image = over(pattern + shade[..., None], inside(deep * least, size, view), image)
    whole, flat = plane(size, _straight(view))
    for leaf in parameters["hiding"]:
        deep = depth(leaf, whole, flat)
        least = ops.min(leaf["radius"], axis=1)[:, None, None]
        image = over(painted(leaf["colours"]), inside(deep * least, size), image)
    return image


def _straight(view):
    """The view of the picture itself, for as many pictures."""
    return 0.0 * view + ops.convert_to_tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
