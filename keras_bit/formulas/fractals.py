"""Fractals: attractors of a few affine maps, drawn by the chaos game.

Kataoka et al., "Pre-training without Natural Images" (ACCV 2020). How maps are drawn so that most
attractors are rich figures follows Anderson & Farrell, "Improving Fractal Pre-training" (WACV
2022, section 3): the singular values of all maps decide how dense the figure is.
"""

import numpy as np
from keras import ops

from keras_bit.formulas import draws
from keras_bit.formulas.fields import over, painted

MAPS = 4
PARTICLES = 256
STEPS = 22
DISCARDED_STEPS = 6


def classes(random, count):
    """What makes a fractal: two to four maps."""
    maps = random.randint(2, MAPS + 1, count)
    systems = [_system(random, number) for number in maps]
    padded = np.stack([system[np.arange(MAPS) % len(system)] for system in systems])
    weight = np.abs(np.linalg.det(padded[..., :2])) + 0.02
    weight *= np.arange(MAPS) < maps[:, None]
    return {"maps": padded, "weight": weight / weight.sum(axis=1, keepdims=True)}


def _system(random, number):
    """`number` affine maps (2, 3), contracting as Anderson & Farrell's section 3.2 asks."""
    # sum of sigma1 + 2 sigma2 over the maps within [(5 + N) / 2, (6 + N) / 2]
    goal = random.uniform((5 + number) / 2, (6 + number) / 2)
    values = _singular_values(random, number, goal)
    turns = random.uniform(-np.pi, np.pi, (number, 2))
    flips = random.choice([-1.0, 1.0], (number, 2))
    offset = random.uniform(-1, 1, (number, 2, 1))
    first, last = (_rotations(turns[:, side]) for side in (0, 1))
    scale = np.zeros((number, 2, 2))
    scale[:, 0, 0], scale[:, 1, 1] = (values * flips).T
    return np.concatenate([first @ scale @ last, offset], axis=2)


def _singular_values(random, number, goal):
    while True:
        values = np.sort(random.uniform(0.1, 0.97, (number, 2)), axis=1)[:, ::-1]
        total = (values * (1.0, 2.0)).sum()
        values = values * (goal / total)
        if values.max() < 0.98:
            return values


def _rotations(angles):
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)


def draw(random, rows):
    """The parameters of one picture for each row of `classes`."""
    count = len(rows["weight"])
    steps = (STEPS, count, PARTICLES)
    bounds = np.cumsum(rows["weight"], axis=1)[None, :, None, :-1]
    chance = random.uniform(0, 1, steps)[..., None]
    return {
        "maps": draws.jittered(random, rows["maps"], 0.02),
        "choices": (chance > bounds).sum(axis=-1).astype("int32").transpose(1, 0, 2),
        "view": draws.views(random, count, scale=(0.7, 1.2)),
        "colours": draws.colours(random, count, 3),
    }


def points(maps, choices):
    """The attractor as points (batch, number, 2), brought to mean 0 and a spread of 0.5."""
    x = ops.zeros((ops.shape(maps)[0], PARTICLES, 2))
    kept = []
    for step in range(STEPS):
        one_hot = ops.one_hot(choices[:, step], MAPS)
        chosen = ops.einsum("bpm,bmij->bpij", one_hot, maps)
        x = ops.einsum("bpij,bpj->bpi", chosen[..., :2], x) + chosen[..., 2]
        if step >= DISCARDED_STEPS:
            kept.append(x)
    x = ops.concatenate(kept, axis=1)
    x = x - ops.mean(x, axis=1, keepdims=True)
    return 0.5 * x / (ops.max(ops.std(x, axis=1, keepdims=True), axis=2, keepdims=True) + 1e-6)


def render(parameters, size):
    """Images (batch, size, size, 3)."""
    x = points(parameters["maps"], parameters["choices"])
    view = parameters["view"]
    x = ops.einsum("bij,bpj->bpi", view[:, :, :2], x) + view[:, None, :, 2]
    density = _counts(x, size)
    coverage = 1.0 - ops.exp(-density)
    heat = 1.0 - ops.exp(-0.15 * density)
    ground = painted(parameters["colours"][:, :1]) + ops.zeros_like(coverage)[..., None]
    return over(painted(parameters["colours"][:, 1:], heat), coverage, ground)


def _counts(x, size):
    """How many of the points (batch, number, 2) fall on each pixel: (batch, size, size)."""
    pixel = ops.cast(ops.floor((x + 1.0) * (size / 2)), "int32")
    seen = ops.all((pixel >= 0) & (pixel < size), axis=-1)
    pixel = ops.clip(pixel, 0, size - 1)
    batch = ops.shape(x)[0]
    place = ops.arange(batch, dtype="int32")[:, None] * (size * size)
    place = place + pixel[..., 1] * size + pixel[..., 0]
    seen = ops.cast(ops.reshape(seen, (-1,)), "float32")
    total = ops.segment_sum(seen, ops.reshape(place, (-1,)), batch * size * size)
    return ops.reshape(total, (batch, size, size))
