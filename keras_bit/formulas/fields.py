"""Pictures as functions of the plane: coordinates, sums of waves, soft edges and colours.

All in `keras.ops`, a batch at a time, with parameters that were drawn beforehand: rendering is a
pure function of them.
"""

import math

from keras import ops


def plane(size, view):
    """Coordinates of the pixels as each image's view sees them.

    Args:
        size: Edge of the square images, in pixels.
        view: Floats (batch, 2, 3): a matrix and an offset that bring the picture, whose corners
            lie at -1 and 1, to the coordinates of what is drawn.

    Returns:
        `x` and `y`, floats (batch, size, size) each.
    """
    edge = _edge(size)
    across, down = edge[None, None, :], edge[None, :, None]
    view = view[:, :, :, None, None]
    x = view[:, 0, 0] * across + view[:, 0, 1] * down + view[:, 0, 2]
    y = view[:, 1, 0] * across + view[:, 1, 1] * down + view[:, 1, 2]
    return x, y


def waves(size, frequencies, phases, amplitudes):
    """A sum of plane waves in each image.

    Args:
        size: Edge of the square images, in pixels.
        frequencies: Floats (batch, waves, 2), cycles per picture across and down.
        phases: Floats (batch, waves), in radians.
        amplitudes: Floats (batch, waves).

    Returns:
        Floats (batch, size, size).
    """
    edge = _edge(size)
    across = math.pi * frequencies[:, :, :1] * edge
    down = math.pi * frequencies[:, :, 1:] * edge + phases[:, :, None]
    amplitudes = amplitudes[:, :, None]
    # cos(a + b) falls apart into products of rows and columns, so that a matrix product sums the
    # waves: few cosines, and none at all for each pixel.
    even = ops.einsum("bkh,bkw->bhw", amplitudes * ops.cos(down), ops.cos(across))
    return even - ops.einsum("bkh,bkw->bhw", amplitudes * ops.sin(down), ops.sin(across))


def inside(distance, size, view=None):
    """Soft coverage of each pixel: 1 where `distance` is positive, 0 where it is negative.

    Args:
        distance: Floats (batch, size, size), about the distance from an edge, in units of the
            coordinates.
        size: Edge of the square images, in pixels.
        view: As in `plane`; the softness of an edge is then one pixel under any scale.
    """
    pixel = 2.0 / size
    if view is not None:
        matrix = view[:, :, :2]
        determinant = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
        pixel = pixel * ops.sqrt(ops.abs(determinant))[:, None, None]
    return ops.clip(distance / pixel + 0.5, 0.0, 1.0)


def painted(colours, *amounts):
    """A base colour, moved towards others by `amounts`.

    Args:
        colours: Floats (batch, 1 + n, 3), the base first.
        *amounts: `n` of floats (batch, size, size), 0 for the base and 1 for the other colour.

    Returns:
        Images (batch, size, size, 3).
    """
    base = colours[:, 0, None, None, :]
    image = base
    for index, amount in enumerate(amounts, 1):
        image = image + amount[..., None] * (colours[:, index, None, None, :] - base)
    return image


def over(front, coverage, back):
    """Images `front` laid over `back` where `coverage` (batch, size, size) is 1."""
    return back + coverage[..., None] * (front - back)


def _edge(size):
    return (ops.arange(size, dtype="float32") + 0.5) * (2.0 / size) - 1.0
