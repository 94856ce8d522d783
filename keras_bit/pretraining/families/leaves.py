"""Dead leaves: shapes of many sizes that fall on one another until the background is covered.

The model of occlusion in natural images (Lee, Mumford & Huang 2001), used for pretraining by
Baradad et al., "Learning to See by Looking at Noise" (NeurIPS 2021). Here the contour of the
leaves and the distribution of their sizes are the class.
"""

import numpy as np

from keras_bit.pretraining.families import contours, draws, fields

LEAVES = 16
LARGEST = 0.9


def classes(random: np.random.RandomState, count: int) -> dict:
    shape = contours.classes(random, count)
    return {**shape, "smallest": np.exp(random.uniform(np.log(0.12), np.log(0.5), count))}


def draw(random: np.random.RandomState, rows: dict) -> dict:
    count = len(rows["smallest"])
    leaves = []
    for _ in range(LEAVES):
        size = sizes(random, rows["smallest"])[:, None, None]
        view = draws.views(random, count, scale=(1.0, 1.0), turn=2.0, shift=1.0) / size
        shape, colors = contours.draw_shape(random, rows), draws.colors(random, count, 1)
        leaves.append({"shape": shape, "view": view.astype("float32"), "colors": colors})
    grain = draws.spectrum(random, count, 16, low=1.0, high=8.0)
    return {"leaves": leaves, "background": draws.colors(random, count, 1), "grain": grain}


def sizes(random: np.random.RandomState, smallest: np.ndarray) -> np.ndarray:
    """Draws radii with a density of r^-3, which makes images scale-invariant."""
    low, high = smallest**-2, LARGEST**-2
    return (high + (low - high) * random.uniform(0, 1, len(smallest))) ** -0.5


def render(parameters: dict, size: int):
    grain = 0.06 * fields.plane_waves(size, **parameters["grain"])[..., None]
    image = fields.blend(parameters["background"]) + grain
    for leaf in parameters["leaves"]:
        depth = contours.signed_depth(leaf["shape"], *fields.coordinates(size, leaf["view"]))
        front = fields.blend(leaf["colors"]) + (0.25 * depth - 0.1)[..., None] + grain
        image = fields.over(front, fields.soft_mask(depth, size, leaf["view"]), image)
    return image
