import keras
import numpy as np
import pytest

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining import SyntheticImages
from keras_bit.pretraining.families import FAMILIES

# The mean of red, green and blue over the first batch: images must never change.
MEANS = {
    "contours": (0.53068, 0.50245, 0.55173),
    "fractals": (0.44256, 0.47267, 0.53945),
    "leaves": (0.50714, 0.54146, 0.46493),
    "networks": (0.48815, 0.49682, 0.48900),
    "scenes": (0.52229, 0.51811, 0.54632),
    "textures": (0.54310, 0.48504, 0.49958),
}


def batch(families, index=0, **settings):
    settings = {"classes": 5, "batch_size": 20, "batches": 3, "image_size": 24, **settings}
    return SyntheticImages(families, **settings)[index]


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_finite_varied_and_in_range(family):
    images, labels = batch([family])
    assert images.shape == (20, 24, 24, 3) and images.dtype == np.float32
    assert labels.shape == (20,) and labels.dtype == np.int32
    assert 0 <= images.min() and images.max() <= 1 and np.isfinite(images).all()
    assert (images.std(axis=(1, 2, 3)) > 0.005).mean() > 0.8
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), MEANS[family], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_are_a_function_of_seed_and_index(family):
    images, labels = batch([family], 2)
    again = batch([family], 0, start=2)
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], labels)
    for other in (batch([family], 1), batch([family], 2, seed=1)):
        assert np.abs(other[0] - images).mean() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_a_class_share_the_parameters_of_the_class(family):
    module = FAMILIES[family]
    rows = module.classes(frozen_stream(3), 2)

    def image(number):
        row = keras.tree.map_structure(lambda array: array[[number]], rows)
        parameters = keras.tree.map_structure(keras.ops.array, module.draw(frozen_stream(4), row))
        return np.asarray(module.render(parameters, 24))

    first = image(0)
    np.testing.assert_array_equal(image(0), first)
    assert np.abs(image(1) - first).max() > 0.05


def test_families_have_equal_shares_and_labels_of_their_own():
    _, labels = batch(["textures", "networks"])
    assert (labels[:10] < 5).all() and (labels[10:] >= 5).all() and labels.max() < 10
    assert SyntheticImages(["textures", "networks"], 5, 2, 1).num_classes == 10


def test_a_family_looks_the_same_beside_others():
    alone, _ = batch(["textures"], batch_size=10)
    beside, _ = batch(["textures", "networks"], batch_size=20)
    np.testing.assert_allclose(beside[:10], alone, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"families": ["clouds"]}, "`families`.*'contours'.*clouds"),
        ({"families": "scenes"}, "`families`"),
        ({"families": []}, "`families`"),
        ({"families": ["scenes", "scenes"]}, "`families`"),
        ({"batch_size": 3}, "`batch_size` must be a multiple.*batch_size=3, 2 families"),
        ({"classes": 1}, "`classes`.*at least 2"),
        ({"image_size": 0}, "`image_size`"),
        ({"batches": 0}, "`batches`"),
        ({"start": -1}, "`start`"),
        ({"seed": None}, "`seed`"),
    ],
)
def test_wrong_arguments(arguments, message):
    right = {"families": ["scenes", "leaves"], "classes": 2, "batch_size": 4, "batches": 1}
    with pytest.raises(ValueError, match=message):
        SyntheticImages(**{**right, **arguments})
