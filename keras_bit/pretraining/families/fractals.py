"""Fractals: attractors of a few affine maps, drawn by the chaos game.

Kataoka et al., "Pre-training without Natural Images" (ACCV 2020). The maps are drawn as in Anderson
& Farrell, "Improving Fractal Pre-training" (WACV 2022, section 3), so that most attractors have
rich structure: the singular values of all maps determine how dense an attractor is.
"""

import numpy as np
from keras import ops

from keras_bit.pretraining.families import draws, fields

MAPS = 4
PARTICLES = 256
STEPS = 22
DISCARDED_STEPS = 6


def classes(random: np.random.RandomState, count: int) -> dict:
    maps = random.randint(2, MAPS + 1, count)
    padded = np.stack([_system(random, number)[np.arange(MAPS) % number] for number in maps])
    weight = np.abs(np.linalg.det(padded[..., :2])) + 0.02
    weight *= np.arange(MAPS) < maps[:, None]
    return {"maps": padded, "weight": weight / weight.sum(axis=1, keepdims=True)}


def _system(random, number):
    """`number` affine maps (2, 3), contracting as in Anderson & Farrell's section 3.2."""
    # The sum of sigma1 + 2 sigma2 over the maps is within [(5 + N) / 2, (6 + N) / 2].
    goal = random.uniform((5 + number) / 2, (6 + number) / 2)
    values = np.ones(1)
    while values.max() >= 0.98:
        values = np.sort(random.uniform(0.1, 0.97, (number, 2)), axis=1)[:, ::-1]
        values = values * (goal / (values * (1.0, 2.0)).sum())
    angles = random.uniform(-np.pi, np.pi, (number, 2))
    scale = values * random.choice([-1.0, 1.0], (number, 2))
    offset = random.uniform(-1, 1, (number, 2, 1))
    first, last = (draws.rotations(column) for column in angles.T)
    return np.concatenate([first * scale[:, None] @ last, offset], axis=2)


def draw(random: np.random.RandomState, rows: dict) -> dict:
    count = len(rows["weight"])
    bounds = np.cumsum(rows["weight"], axis=1)[None, :, None, :-1]
    chance = random.uniform(0, 1, (STEPS, count, PARTICLES, 1))
    return {
        "maps": draws.jitter(random, rows["maps"], 0.02),
        "choices": (chance > bounds).sum(axis=-1).astype("int32").transpose(1, 0, 2),
        "view": draws.views(random, count, scale=(0.7, 1.2)),
        "colors": draws.colors(random, count, 3),
    }


def points(maps, choices):
    """Returns points (batch, points, 2) of the attractors, with mean 0 and a spread of 0.5.

    Of `maps` (batch, MAPS, 2, 3), `choices` (batch, STEPS, PARTICLES) says which moves a particle.
    """
    x = ops.zeros((ops.shape(maps)[0], PARTICLES, 2))
    steps = []
    for step in range(STEPS):
        chosen = ops.einsum("bpm,bmij->bpij", ops.one_hot(choices[:, step], MAPS), maps)
        x = ops.einsum("bpij,bpj->bpi", chosen[..., :2], x) + chosen[..., 2]
        steps.append(x)
    x = ops.concatenate(steps[DISCARDED_STEPS:], axis=1)
    x = x - ops.mean(x, axis=1, keepdims=True)
    return 0.5 * x / (ops.max(ops.std(x, axis=1, keepdims=True), axis=2, keepdims=True) + 1e-6)


def count_points(x, size: int):
    """Returns how many of the points (batch, points, 2) fall on each pixel: (batch, size, size)."""
    pixel = ops.cast(ops.floor((x + 1.0) * (size / 2)), "int32")
    visible = ops.cast(ops.all((pixel >= 0) & (pixel < size), axis=-1), "float32")
    pixel = ops.clip(pixel, 0, size - 1)
    batch = ops.shape(x)[0]
    row = ops.arange(batch, dtype="int32")[:, None] * size + pixel[..., 1]
    index = ops.ravel(row * size + pixel[..., 0])
    total = ops.segment_sum(ops.ravel(visible), index, batch * size * size)
    return ops.reshape(total, (batch, size, size))


def render(parameters: dict, size: int):
    x = points(parameters["maps"], parameters["choices"])
    view, colors = parameters["view"], parameters["colors"]
    x = ops.einsum("bij,bpj->bpi", view[:, :, :2], x) + view[:, None, :, 2]
    density = count_points(x, size)
    mask, heat = 1.0 - ops.exp(-density), 1.0 - ops.exp(-0.15 * density)
    return fields.over(fields.blend(colors[:, 1:], heat), mask, fields.blend(colors))
