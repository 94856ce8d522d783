import dataclasses

import numpy as np
import pytest

from keras_bit.exporters.graph import Serving
from keras_bit.layers.image_input import add_guard, rescale

pytestmark = pytest.mark.tensorflow
ANY = (None, None)
PLAIN = Serving(
    input="uint8",
    image_size=ANY,
    network_size=None,
    value_range=(0, 1),
    temperature=1.0,
    activation=None,
    guarded=False,
)


def served(images, model, **changes):
    return np.asarray(dataclasses.replace(PLAIN, **changes).function(model)(images))


def given(pixels, training):
    """A model whose outputs are what it is given."""
    assert training is False
    return pixels


@pytest.mark.parametrize(
    "value_range, expected",
    [((0, 1), [0, 0.2, 1]), ((0, 255), [0, 51, 255]), ((-1, 1), [-1, -0.6, 1])],
)
@pytest.mark.parametrize("input", ["uint8", "float32"])
def test_values_come_to_lie_in_the_range_of_the_model(value_range, expected, input):
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    images = images if input == "uint8" else images.astype("float32") / 255
    found = served(images, given, value_range=value_range, input=input)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)


@pytest.mark.parametrize("input", ["uint8", "float32"])
def test_images_are_resized_with_half_pixel_centers_and_rounded_to_8_bits(input):
    row = np.array([0, 100, 201, 50], np.uint8)
    images = np.broadcast_to(row[None, None, :, None], (1, 2, 4, 3))
    images = images if input == "uint8" else images.astype("float32") / 255
    options = {"network_size": (1, 2), "value_range": (0, 255), "input": input}
    found = served(images, given, **options)
    # The means of two pixels each, 50 and 125.5; half to even. Not every other pixel, and no mean
    # over more than the neighbors.
    np.testing.assert_allclose(found[0, 0, :, 0], [50, 126], atol=1e-4)
    found = served(images, given, **{**options, "network_size": (2, 8)})
    np.testing.assert_allclose(found[0, 0, :3, 0], [0, 25, 75], atol=1e-4)


def test_images_of_the_network_s_size_are_left_as_they_are():
    images = np.full((1, 2, 2, 3), 0.5, np.float32)
    sizes = {"image_size": (2, 2), "network_size": (2, 2)}
    np.testing.assert_array_equal(served(images, given, input="float32", **sizes), images)


def test_logits_become_probabilities():
    def logits(pixels, training):
        return pixels[:, 0, 0] * 255

    images = np.array([0, 1, 3], np.uint8).reshape(1, 1, 1, 3)
    e = np.exp([0, 0.5, 1.5])
    found = served(images, logits, temperature=2.0, activation="softmax")
    np.testing.assert_allclose(found[0], e / e.sum(), rtol=1e-5)
    found = served(images, logits, temperature=2.0, activation="sigmoid")
    np.testing.assert_allclose(found[0], e / (1 + e), rtol=1e-5)
    np.testing.assert_allclose(served(images, logits, temperature=2.0)[0], [0, 0.5, 1.5], rtol=1e-5)


def test_images_of_8_bits_need_no_guard():
    def backbone(images, training):
        pixels, guard = rescale(images, (0, 1), "float32")
        return add_guard(pixels, guard)

    images = np.full((1, 32, 32, 3), 200.0, np.float32)
    with pytest.raises(ValueError, match="`images` must lie in"):  # NaN in a graph
        served(images, backbone, input="float32", guarded=True)
    assert np.isfinite(served(images, backbone, input="float32", guarded=False)).all()
