"""Scenes: an object made of rounded parts in front of a background, partly occluded.

The object is the class; rotation, light, color, pattern, position and occlusion are not, so that a
network learns shape. Parts are superellipses (Barr, "Superquadrics and angle-preserving
transformations", 1981), often mirrored as most objects and animals are; backgrounds and patterns
are those of `textures`, and occluders are the dead leaves of Lee, Mumford & Huang (2001).
"""

import numpy as np
from keras import ops

from keras_bit.pretraining.families import draws, fields, textures

PARTS = 5
OCCLUDERS = 2
MIN_CONTRAST = 0.2
SUPERELLIPSE = ("center", "radius", "angle", "roundness")


def classes(random: np.random.RandomState, count: int) -> dict:
    shape = (count, PARTS)
    return {
        "mirrored": (random.uniform(0, 1, count) < 0.75).astype("float32"),
        "center": np.clip(random.normal(0, 0.38, (*shape, 2)), -0.8, 0.8),
        "radius": np.exp(random.normal(np.log(0.32), 0.45, (*shape, 2))),
        "angle": random.uniform(0, np.pi, shape) * (random.uniform(0, 1, shape) < 0.6),
        "roundness": np.exp(random.uniform(np.log(1.2), np.log(6.0), shape)).astype("float32"),
        "contrast": random.uniform(0, 0.5, shape) * (random.uniform(0, 1, shape) < 0.5),
    }


def draw(random: np.random.RandomState, rows: dict) -> dict:
    count = len(rows["mirrored"])
    radius = rows["radius"] * np.exp(random.normal(0, 0.08, rows["radius"].shape))
    pattern, background = _muted_texture(random, count, 0.5), _muted_texture(random, count, 0.7)
    pattern["colors"] = _set_apart(pattern["colors"], background["colors"])
    return {
        **rows,
        "center": draws.jitter(random, rows["center"], 0.03),
        "radius": radius.astype("float32"),
        "angle": draws.jitter(random, rows["angle"], 0.08),
        "contrast": draws.jitter(random, rows["contrast"], 0.05),
        "view": draws.views(random, count, scale=(0.8, 1.5), shift=0.3),
        "light": random.normal(0, 0.12, (count, 3)).astype("float32"),
        "pattern": pattern,
        "background": background,
        "occluders": [_occluder(random, count) for _ in range(OCCLUDERS)],
    }


def _muted_texture(random, count, most):
    """Random textures whose contrast is reduced by up to the fraction `most`."""
    texture = textures.draw(random, textures.classes(random, count))
    base = texture["colors"][:, :1]
    contrast = (1 - most * random.uniform(0, 1, (count, 1, 1)) ** 0.3).astype("float32")
    texture["colors"] = base + contrast * (texture["colors"] - base)
    return texture


def _set_apart(colors, others):
    """`colors`, made lighter or darker where their base is too close to that of `others`."""
    difference = (colors - others)[:, :1].mean(axis=2, keepdims=True)
    missing = np.maximum(MIN_CONTRAST - np.abs(difference), 0)
    return (colors + np.where(difference < 0, -missing, missing)).astype("float32")


def _occluder(random, count):
    """A superellipse away from the center; it has no size in more than half of the images."""
    present = random.uniform(0, 1, count) < 0.4
    angle = random.uniform(-np.pi, np.pi, count)
    center = np.stack([np.cos(angle), np.sin(angle)], axis=1) * random.uniform(0.6, 1, (count, 1))
    return {
        "center": center.astype("float32"),
        "radius": (present[:, None] * random.uniform(0.1, 0.4, (count, 2))).astype("float32"),
        "angle": random.uniform(0, np.pi, count).astype("float32"),
        "roundness": np.exp(random.uniform(0.2, 1.8, count)).astype("float32"),
        "colors": draws.colors(random, count, 1),
    }


def signed_depth(part: dict, x, y):
    """Returns how far inside the part points lie: 1 at its center, 0 on its edge, negative outside.

    Takes `center` and `radius` (batch, 2), `angle` and `roundness` (batch,) in a dict.
    """
    center, radius = (part[name][:, :, None, None] for name in ("center", "radius"))
    angle, roundness = (part[name][:, None, None] for name in ("angle", "roundness"))
    x, y = x - center[:, 0], y - center[:, 1]
    cosine, sine = ops.cos(angle), ops.sin(angle)
    along = ops.abs(cosine * x + sine * y) / (radius[:, 0] + 1e-6) + 1e-6
    across = ops.abs(cosine * y - sine * x) / (radius[:, 1] + 1e-6) + 1e-6
    total = ops.exp(roundness * ops.log(along)) + ops.exp(roundness * ops.log(across))
    return 1.0 - ops.exp(ops.log(total) / roundness)


def render(parameters: dict, size: int):
    view = parameters["view"]
    x, y = fields.coordinates(size, view)
    x = ops.where(parameters["mirrored"][:, None, None] > 0, ops.abs(x), x)
    pattern, image = (textures.render(parameters[key], size) for key in ("pattern", "background"))
    light, contrast = (parameters[name][:, :, None, None] for name in ("light", "contrast"))
    slope = light[:, 0] * x + light[:, 1] * y
    for index in range(PARTS):
        part = {name: parameters[name][:, index] for name in SUPERELLIPSE}
        depth = signed_depth(part, x, y)
        shade = slope + (light[:, 2] + 0.15) * ops.clip(depth, 0.0, 0.5) - contrast[:, index]
        mask = fields.soft_mask(depth * _least_radius(part), size, view)
        image = fields.over(pattern + shade[..., None], mask, image)
    # From `view`: a constant would be folded by XLA, and round differently.
    x, y = fields.coordinates(size, 0.0 * view + ops.eye(2, 3, dtype="float32"))
    for occluder in parameters["occluders"]:
        depth = signed_depth(occluder, x, y) * _least_radius(occluder)
        image = fields.over(fields.blend(occluder["colors"]), fields.soft_mask(depth, size), image)
    return image


def _least_radius(part):
    return ops.min(part["radius"], axis=1)[:, None, None]
