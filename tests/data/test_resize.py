import numpy as np
import pytest

from keras_bit.data import resize as resize_module
from keras_bit.data.resize import _with_numpy, resize


def bilinear(image, edge):
    """Bilinear interpolation at pixel centers, in float64."""
    for axis in (0, 1):
        size = image.shape[axis]
        at = (np.arange(edge) + 0.5) * size / edge - 0.5
        low = np.floor(at)
        weight = (at - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        below, above = (np.clip(low + step, 0, size - 1).astype(int) for step in (0, 1))
        image = (1 - weight) * image.take(below, axis) + weight * image.take(above, axis)
    return image


@pytest.mark.parametrize("shape", [(37, 61), (5, 3), (16, 16), (1, 1), (64, 20)])
def test_resize_is_bilinear_without_antialiasing(rng, shape):
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    resized = resize(image, 16)
    assert resized.shape == (16, 16, 3) and resized.dtype == np.uint8
    assert np.abs(resized - bilinear(image.astype(float), 16)).max() <= 0.5 + 1e-4


@pytest.mark.tensorflow
@pytest.mark.parametrize("largest", [12, 200])
def test_resize_is_what_tensorflow_resizes_to_rounded(rng, largest):
    import tensorflow as tf

    for _ in range(60):
        height, width, edge = rng.integers(1, largest, 3).tolist()
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        for size in ((edge, edge), (edge, height)):
            expected = np.rint(tf.image.resize(image, size, antialias=False))
            for function in (resize, _with_numpy):
                np.testing.assert_array_equal(
                    function(image, size), expected, f"{function.__name__}: {height, width, size}"
                )


@pytest.mark.tensorflow
@pytest.mark.slow
def test_resize_is_what_tensorflow_resizes_photographs_to(rng):
    import tensorflow as tf

    for number in range(150):
        height, width = rng.integers(1, 2500, 2).tolist()
        edge = (160, 224, 256, 480, 512)[number % 5]
        # Of two gray levels, so that many values lie halfway between two bytes.
        image = rng.integers(0, 2, (height, width, 3), np.uint8) * np.uint8(rng.integers(1, 256))
        expected = np.rint(tf.image.resize(image, (edge, edge), antialias=False))
        np.testing.assert_array_equal(
            _with_numpy(image, (edge, edge)), expected, f"{height, width, edge}"
        )


def test_resize_is_the_same_in_bands_of_any_size(rng, monkeypatch):
    image = rng.integers(0, 256, (61, 37, 3), np.uint8)
    whole = _with_numpy(image, (50, 50))
    for band in (1, 7, 50):
        monkeypatch.setattr(resize_module, "BAND", band)
        np.testing.assert_array_equal(_with_numpy(image, (50, 50)), whole)


def test_resize_rounds_to_nearest():
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1] = 255
    resized = resize(image, 4)
    np.testing.assert_array_equal(resized[0, :, 0], [0, 64, 191, 255])  # 63.75, 191.25
    assert resized.shape == (4, 4, 3) and resized.dtype == np.uint8
