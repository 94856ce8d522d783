import numpy as np

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import draws


def test_views_show_as_much_of_the_plane_as_asked_for():
    views = draws.views(frozen_stream(0), 500, scale=(0.5, 2.0), shift=0.1)
    determinant = np.linalg.det(views[:, :, :2])
    assert views.dtype == "float32" and views.shape == (500, 2, 3)
    assert 0.24 < determinant.min() < 0.3 and 3.5 < determinant.max() < 4.1
    assert np.abs(views[:, :, 2]).max() <= 0.2


def test_a_turned_view_is_a_rotation():
    (view,) = draws.views(frozen_stream(1), 1, scale=(1, 1), turn=1.0, shift=0, stretch=0)
    np.testing.assert_allclose(view[:, :2] @ view[:, :2].T, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(view[:, 2], 0)


def test_colors_vary_most_in_lightness():
    colors = draws.colors(frozen_stream(0), 4000, 2)
    assert colors.shape == (4000, 2, 3) and 0 <= colors.min() and colors.max() <= 1
    spread = np.linalg.svd(np.cov(colors.reshape(-1, 3).T))
    assert spread[1][0] > 2 * spread[1][1]
    np.testing.assert_allclose(np.abs(spread[0][:, 0]), 3**-0.5, atol=0.1)


def test_a_spectrum_has_its_range_its_direction_and_a_variance_of_one():
    waves = draws.spectrum(
        frozen_stream(0), 2000, 6, low=2.0, high=np.full(2000, 8.0), angle=0.5, spread=0.1
    )
    frequency = np.linalg.norm(waves["frequencies"], axis=-1)
    assert 2 <= frequency.min() < 2.01 and 7.9 < frequency.max() <= 8.001
    direction = np.arctan2(waves["frequencies"][..., 1], waves["frequencies"][..., 0])
    assert abs(direction.mean() - 0.5) < 0.01 and abs(direction.std() - 0.1) < 0.01
    np.testing.assert_allclose((waves["amplitudes"] ** 2).sum(axis=1) / 2, 1, rtol=1e-5)


def test_amplitudes_fall_with_the_slope():
    for slope in (0.5, 1.0, 2.0):
        waves = draws.spectrum(frozen_stream(0), 500, 8, low=1.0, high=16.0, slope=slope)
        frequency = np.log(np.linalg.norm(waves["frequencies"], axis=-1))
        fall = np.polyfit(frequency[0], np.log(waves["amplitudes"][0]), 1)[0]
        assert abs(fall - (1 - slope)) < 1e-3


def test_jitter_has_its_deviation():
    values = draws.jitter(frozen_stream(0), np.full(4000, 3.0), 0.5)
    assert values.dtype == "float32"
    assert abs(values.mean() - 3) < 0.03 and abs(values.std() - 0.5) < 0.02
