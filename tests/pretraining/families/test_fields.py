import numpy as np
import pytest

from keras_bit.pretraining.families import fields


def test_coordinates_has_pixel_centers_between_minus_one_and_one(identity_view):
    x, y = fields.coordinates(4, identity_view)
    np.testing.assert_allclose(x[0, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(y[0, :, 0], [-0.75, -0.25, 0.25, 0.75])


def test_coordinates_follows_the_view():
    view = np.array([[[0, 2, 10], [3, 0, 20]]], "float32")
    x, y = fields.coordinates(2, view)
    np.testing.assert_allclose(x[0], [[9, 9], [11, 11]])
    np.testing.assert_allclose(y[0], [[18.5, 21.5], [18.5, 21.5]])


def test_waves_are_cosines_summed_one_by_one(rng):
    frequencies = rng.uniform(-5, 5, (2, 7, 2)).astype("float32")
    phases = rng.uniform(0, 6, (2, 7)).astype("float32")
    amplitudes = rng.uniform(0, 1, (2, 7)).astype("float32")
    edge = (np.arange(9) + 0.5) * 2 / 9 - 1
    expected = np.zeros((2, 9, 9))
    for image, wave in np.ndindex(2, 7):
        across, down = frequencies[image, wave]
        angle = np.pi * (across * edge[None, :] + down * edge[:, None]) + phases[image, wave]
        expected[image] += amplitudes[image, wave] * np.cos(angle)
    np.testing.assert_allclose(
        fields.plane_waves(9, frequencies, phases, amplitudes), expected, atol=2e-5
    )


@pytest.mark.parametrize("zoom", [0.5, 1, 3])
def test_an_edge_is_one_pixel_soft_under_any_view(zoom, identity_view):
    view = identity_view * zoom
    x, _ = fields.coordinates(8, view)
    mask = np.asarray(fields.soft_mask(x, 8, view))[0, 0]
    np.testing.assert_allclose(mask, [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-6)
    shifted = np.asarray(fields.soft_mask(x + zoom / 8, 8, view))[0, 0]
    np.testing.assert_allclose(shifted, [0, 0, 0, 0.5, 1, 1, 1, 1], atol=1e-6)


def test_blend_and_over_by_hand():
    colors = np.array([[[0.2, 0.4, 0.6], [1.0, 0.4, 0.0], [0.2, 0.8, 0.6]]], "float32")
    half = np.full((1, 1, 1), 0.5, "float32")
    mixed = fields.blend(colors, half, 2 * half)
    np.testing.assert_allclose(np.ravel(mixed), [0.6, 0.8, 0.3], rtol=1e-6)
    laid = fields.over(np.ones((1, 1, 1, 3)), half / 2, np.zeros((1, 1, 1, 3)))
    np.testing.assert_allclose(np.ravel(laid), [0.25] * 3)
