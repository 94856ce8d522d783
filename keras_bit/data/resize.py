"""Images resized as the released BiT weights were trained."""

import keras
import numpy as np

BAND = 32  # rows of the result that are computed together: what they need stays in a core's cache


def resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes `image` as the released BiT weights were trained.

    Bilinear with half-pixel centers and without antialiasing, as in the authors' input pipeline;
    from uint8 `(height, width, 3)` to uint8 of the height and width `size`, one number for both,
    rounded to nearest. On TensorFlow its `ResizeBilinear` computes it; elsewhere NumPy does, with
    the same operations in float32 and in the same order, and so with the same result.

    Example:

    >>> from keras_bit.data.resize import resize
    >>> resize(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), 4)[0, :, 0]
    array([  0,  64, 191, 255], dtype=uint8)
    """
    size = size if isinstance(size, tuple) else (size, size)
    if keras.backend.backend() == "tensorflow":
        return _with_tensorflow(image, size)
    return _with_numpy(image, size)


def _with_tensorflow(image, size):
    """In half the time that NumPy takes."""
    import tensorflow as tf

    with tf.device("CPU"):  # not on a GPU, which the model is to have
        (values,) = tf.raw_ops.ResizeBilinear(
            images=image[None], size=size, half_pixel_centers=True
        )
    values = values.numpy()
    return np.rint(values, out=values).astype(np.uint8)


def _with_numpy(image, size):
    height, width, channels = image.shape
    new_height, new_width = size
    above, below, down = _neighbors(height, new_height)
    left, right, across = _neighbors(width, new_width)
    # Single numbers are gathered faster than pixels of three.
    left, right = (
        (side[:, None] * channels + np.arange(channels)).ravel() for side in (left, right)
    )
    across, down = np.repeat(across, channels), down[:, None]
    lines = image.reshape(height, width * channels)
    resized = np.empty((new_height, new_width * channels), np.uint8)
    for start in range(0, new_height, BAND):
        band = slice(start, start + BAND)
        needed, row_of = np.unique([above[band], below[band]], return_inverse=True)
        rows = lines[needed]
        wide = _interpolate(rows.take(left, 1), rows.take(right, 1), across)
        upper, lower = row_of.reshape(2, -1)
        values = _interpolate(wide[upper], wide[lower], down[band])
        resized[band] = np.rint(values, out=values)
    return resized.reshape(new_height, new_width, channels)


def _neighbors(size, new_size):
    """Of `new_size` positions along an axis, the pixels before and after each, and how far between.

    Places outside of the outermost centers have that pixel on both sides.
    """
    scale = np.float32(size) / np.float32(new_size)
    position = (np.arange(new_size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    before = np.floor(position)
    lower = np.maximum(before, 0).astype(np.int64)
    upper = np.minimum(np.ceil(position).astype(np.int64), size - 1)
    return lower, upper, position - before


def _interpolate(first, second, part):
    first = first.astype(np.float32, copy=False)
    between = np.subtract(second, first, dtype=np.float32)
    between *= part
    between += first
    return between
