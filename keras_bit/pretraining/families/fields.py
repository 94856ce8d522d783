"""Images as functions of the plane, in `keras.ops`: coordinates, waves, soft edges and colors."""

import math

from keras import ops


def coordinates(size: int, view) -> tuple:
    """Returns `x` and `y` (batch, size, size): where on the plane the pixels of images lie.

    A view (batch, 2, 3) is a matrix and an offset; it maps image coordinates, from -1 to 1.
    """
    across, down = _edge(size), _edge(size)[:, None]
    view = view[:, :, :, None, None]
    return tuple(view[:, i, 0] * across + view[:, i, 1] * down + view[:, i, 2] for i in (0, 1))


def plane_waves(size: int, frequencies, phases, amplitudes):
    """Returns sums (batch, size, size) of plane waves with `phases`, `amplitudes` (batch, waves).

    `frequencies` (batch, waves, 2) are in cycles per image, across and down.
    """
    edge = _edge(size)
    across = math.pi * frequencies[:, :, :1] * edge
    down = math.pi * frequencies[:, :, 1:] * edge + phases[:, :, None]
    amplitudes = amplitudes[:, :, None]
    # cos(a + b) splits into products of rows and columns, so that a matrix product sums the waves
    # without a cosine per pixel and wave.
    even = ops.einsum("bkh,bkw->bhw", amplitudes * ops.cos(down), ops.cos(across))
    return even - ops.einsum("bkh,bkw->bhw", amplitudes * ops.sin(down), ops.sin(across))


def soft_mask(distance, size: int, view=None):
    """Returns an antialiased mask: 1 where `distance` is positive, 0 where it is negative.

    Distances from an edge are in units of the coordinates, which `view` maps to pixels.
    """
    pixel = 2.0 / size
    if view is not None:
        determinant = view[:, 0, 0] * view[:, 1, 1] - view[:, 0, 1] * view[:, 1, 0]
        pixel = pixel * ops.sqrt(ops.abs(determinant))[:, None, None]
    return ops.clip(distance / pixel + 0.5, 0.0, 1.0)


def blend(colors, *amounts):
    """Returns images of the first of `colors` (batch, colors, 3), moved toward the others.

    An amount (batch, size, size) of 1 gives a color itself; without any, images have one pixel.
    """
    image = base = colors[:, 0, None, None]
    for index, amount in enumerate(amounts, 1):
        image = image + amount[..., None] * (colors[:, index, None, None] - base)
    return image


def over(front, mask, back):
    """Returns images `front` laid over `back` where `mask` (batch, size, size) is 1."""
    return back + mask[..., None] * (front - back)


def _edge(size):
    return (ops.arange(size, dtype="float32") + 0.5) * (2.0 / size) - 1.0
