"""Dead leaves: figures of many sizes that fall on one another until the ground is covered.

The model of occlusion in natural images (Lee, Mumford & Huang 2001), used for pretraining by
Baradad et al., "Learning to See by Looking at Noise" (NeurIPS 2021). Here the contour of the
leaves and the spread of their sizes are the class.
"""

import numpy as np

from keras_bit.formulas import contours, draws
from keras_bit.formulas.fields import inside, over, painted, plane, waves

LEAVES = 16
LARGEST = 0.9


def classes(random, count):
    """What makes a heap of leaves: their contour, and how their sizes are spread."""
    shape = contours.classes(random, count)
    return {**shape, "smallest": np.exp(random.uniform(np.log(0.12), np.log(0.5), count))}


def draw(random, rows):
    """The parameters of one picture for each row of `classes`."""
    count = len(rows["smallest"])
    leaves = []
    for _ in range(LEAVES):
        size = _sizes(random, rows["smallest"])
        view = draws.views(random, count, scale=(1.0, 1.0), turn=2.0, shift=1.0)
        leaves.append(
            {
                "shape": contours.draw_shape(random, rows),
                "view": (view / size[:, None, None]).astype("float32"),
                "colours": draws.colours(random, count, 1),
            }
        )
    grain = draws.spectrum(
        random,
        slope=np.ones(count),
        lowest=np.ones(count),
        highest=np.full(count, 8.0),
        angle=np.zeros(count),
        spread=np.full(count, 2.0),
        waves=16,
    )
    return {"leaves": leaves, "ground": draws.colours(random, count, 1), "grain": grain}


def _sizes(random, smallest):
    """Radii with a density of r^-3, as scale invariance asks."""
    low, high = smallest**-2, LARGEST**-2
    return (high + (low - high) * random.uniform(0, 1, len(smallest))) ** -0.5


def render(parameters, size):
    """Images (batch, size, size, 3)."""
    grain = 0.06 * waves(size, **parameters["grain"])[..., None]
    image = painted(parameters["ground"]) + grain
    # The largest-drawn come last, and lie in front.
    for leaf in parameters["leaves"]:
        deep = contours.depth(leaf["shape"], *plane(size, leaf["view"]))
        coverage = inside(deep, size, leaf["view"])
        shade = (0.25 * deep - 0.1)[..., None]
        image = over(painted(leaf["colours"]) + shade + grain, coverage, image)
    return image
