import numpy as np

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import fractals


def test_the_chaos_game_finds_sierpinskis_triangle():
    corners = np.array([[0, 0], [1, 0], [0, 1]]) / 2
    maps = np.zeros((1, fractals.MAPS, 2, 3), "float32")
    maps[0, :3, :, :2] = np.eye(2) / 2
    maps[0, :3, :, 2] = corners
    shape = (1, fractals.STEPS, fractals.PARTICLES)
    choices = np.random.RandomState(0).randint(0, 3, shape).astype("int32")
    x = np.asarray(fractals.points(maps, choices))[0]
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-4)
    assert abs(x.std(axis=0).max() - 0.5) < 1e-3
    # Scaled back to the unit triangle, binary digits of x and y are never both 1.
    x = (x - x.min(axis=0)) / (np.ptp(x, axis=0))
    digits = np.minimum((x * 8).astype(int), 7)
    assert ((digits[:, 0] & digits[:, 1]) == 0).mean() > 0.9
    assert len({*map(tuple, digits.tolist())}) >= 27


def test_maps_contract_as_the_rule_asks():
    rows = fractals.classes(frozen_stream(0), 60)
    number = (rows["weight"] > 0).sum(axis=1)
    assert {*number} == {2, 3, 4}
    np.testing.assert_allclose(rows["weight"].sum(axis=1), 1)
    for maps, count in zip(rows["maps"], number, strict=True):
        values = np.linalg.svd(maps[:count, :, :2], compute_uv=False)
        assert values.max() < 0.98
        assert (5 + count) / 2 <= (values @ [1, 2]).sum() + 1e-9 <= (6 + count) / 2 + 1e-6


def test_points_are_counted_where_they_fall():
    x = np.array([[[-0.9, -0.9], [-0.9, -0.9], [0.9, -0.9], [0.1, 0.9], [1.5, 0.0]]], "float32")
    np.testing.assert_array_equal(fractals.count_points(x, 2), [[[2, 1], [0, 1]]])
