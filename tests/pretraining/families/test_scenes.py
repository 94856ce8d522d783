import numpy as np

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import scenes


def test_a_part_is_a_superellipse():
    def depth(x, y, **changes):
        part = {"center": [[0.0, 0.0]], "radius": [[2.0, 1.0]], "angle": [0.0], "roundness": [2.0]}
        part = {name: np.array(value, "float32") for name, value in {**part, **changes}.items()}
        point = np.full((1, 1, 1), x, "float32"), np.full((1, 1, 1), y, "float32")
        return float(np.ravel(scenes.signed_depth(part, *point))[0])

    assert abs(depth(0, 0) - 1) < 1e-4
    assert abs(depth(2, 0)) < 1e-4 and abs(depth(0, -1)) < 1e-4
    assert abs(depth(2**0.5, 0.5**0.5)) < 1e-4  # on the ellipse
    assert depth(1.5, 0.9) < 0 < depth(1.5, 0.9, roundness=[8.0])  # in the corner of a box
    assert abs(depth(0, 2, angle=[np.pi / 2])) < 1e-4
    assert abs(depth(3, 3, center=[[1.0, 3.0]])) < 1e-4


def test_mirrored_objects_are_mirrored(identity_view):
    rows = scenes.classes(frozen_stream(0), 1)
    rows["mirrored"][:] = 1
    parameters = scenes.draw(frozen_stream(1), rows)
    gray = np.zeros((1, 3, 3), "float32")
    parameters |= {"view": identity_view, "light": gray[:, 0], "occluders": []}
    for name in ("pattern", "background"):
        parameters[name]["colors"] = gray + 0.5 * (name == "pattern")
    image = np.asarray(scenes.render(parameters, 32))
    np.testing.assert_allclose(image, image[:, :, ::-1], atol=1e-5)
    assert image.max() > 0.3 and image.min() == 0


def test_objects_stand_out_from_their_background():
    parameters = scenes.draw(frozen_stream(1), scenes.classes(frozen_stream(0), 200))
    difference = parameters["pattern"]["colors"] - parameters["background"]["colors"]
    assert np.abs(difference[:, 0].mean(axis=1)).min() >= scenes.MIN_CONTRAST - 1e-6
