"""Families of synthetic (formula-driven) images, by name.

Each is a module with three functions:

- `classes(random, count)` draws the parameters that make `count` classes: arrays (count, ...).
- `draw(random, rows)` draws the parameters of one image for each row of such arrays.
- `render(parameters, size)` makes the images (batch, size, size, 3) of them, in `keras.ops`.
"""

from keras_bit.pretraining.families import (
    contours,
    coordinate_networks,
    fractals,
    leaves,
    scenes,
    textures,
)

# The seed of a family's classes depends on its position.
FAMILIES = {
    "contours": contours,
    "fractals": fractals,
    "leaves": leaves,
    "networks": coordinate_networks,
    "scenes": scenes,
    "textures": textures,
}
