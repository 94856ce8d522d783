import numpy as np

from keras_bit.pretraining.families import contours


def test_a_contour_lies_at_its_radius():
    shape = {
        "order": np.array([[2.0, 3.0, 1.0, 4.0]], "float32"),
        "size": np.array([[0.3, 0.2, 0.0, 0.1]], "float32"),
        "phase": np.array([[0.5, 0.0, 0.0, 1.0]], "float32"),
    }
    angle = np.linspace(-3, 3, 7)[None, None]
    waves = 0.3 * np.cos(2 * angle + 0.5) + 0.2 * np.cos(3 * angle) + 0.1 * np.cos(4 * angle + 1)
    radius = np.exp(waves)
    for share, depth in ((1.0, 0.0), (0.5, 0.5), (2.0, -1.0)):
        x, y = (share * radius * f(angle) for f in (np.cos, np.sin))
        found = contours.signed_depth(shape, x.astype("float32"), y.astype("float32"))
        np.testing.assert_allclose(found, np.full_like(radius, depth), atol=1e-4)


def test_lines_of_a_contour_are_nested_circles_counted_by_hand(identity_view):
    shape = {name: np.zeros((1, contours.HARMONICS), "float32") for name in ("order", "size")}
    parameters = {
        "shape": {**shape, "phase": shape["size"]},
        "view": identity_view,
        "lines": np.array([2.0], "float32"),
        "width": np.array([0.4], "float32"),
        "colors": np.array([[[0, 0, 0], [1, 1, 1]]], "float32"),
    }
    row = np.asarray(contours.render(parameters, 201))[0, 100, 100:, 0]
    # depth is 1 - radius; lines are 0.2 wide around depths of 0.25 and 0.75
    radius = np.arange(101) * 2 / 201
    expected = (np.abs(radius - 0.25) < 0.1) | (np.abs(radius - 0.75) < 0.1)
    edges = np.isclose(np.abs(np.abs(radius - 0.5) - 0.25), 0.1, atol=0.012)
    np.testing.assert_allclose(row[~edges], expected[~edges], atol=0.01)
