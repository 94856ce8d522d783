import numpy as np
import pytest

from keras_bit.weights.saved_model.function import ModuleFunction
from tests.weights.saved_model.modules import (
    oracle_network,
    oracle_outputs,
    random_arrays,
    save_function,
    save_variables,
    swapped,
)

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def features_function(features_module):
    return ModuleFunction(features_module)


@pytest.fixture(scope="module")
def logits_function(logits_module):
    return ModuleFunction(logits_module)


@pytest.mark.parametrize("function", ["features_function", "logits_function"])
def test_it_equals_the_numpy_oracle(request, function):
    images = np.random.default_rng(4).uniform(0, 1, (3, 32, 40, 3)).astype("float32")
    expected = oracle_outputs(images, random_arrays(head=function == "logits_function"))
    outputs = request.getfixturevalue(function)(images)
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_difference_from_a_network(features_function, logits_function):
    arrays = random_arrays()
    assert 0 < features_function.difference(oracle_network(arrays)) < 1e-4
    assert features_function.difference(oracle_network(swapped(arrays))) > 0.1
    with pytest.raises(ValueError, match=r"shape \(2, 5\).*module's have \(2, 7\)"):
        logits_function.difference(lambda images: np.ones((len(images), 5)))
    assert np.isnan(logits_function.difference(lambda images: np.full((len(images), 7), np.nan)))


def test_a_module_may_take_images_in_either_range(tmp_path):
    """What it takes is not written in it."""
    import tensorflow as tf

    images = tf.TensorSpec((None, None, None, 3), tf.float32)
    folder = save_function(tmp_path / "x", lambda x: tf.reduce_mean(x * abs(x), [1, 2]), images)
    function = ModuleFunction(folder)
    assert function.difference(lambda x: (x * abs(x)).mean((1, 2))) < 1e-5
    assert function.difference(lambda x: ((2 * x - 1) * abs(2 * x - 1)).mean((1, 2))) < 1e-5
    assert function.difference(lambda x: (x - 0.5).mean((1, 2))) > 0.01


def test_one_difference_that_is_no_number_is_enough(features_function):
    def network(images):
        outputs = features_function(images)
        return outputs if images.shape[1] == 64 else np.full_like(outputs, np.nan)

    assert np.isnan(features_function.difference(network))


def test_images_of_another_size(logits_function):
    with pytest.raises(ValueError, match=r"\(None, 32, 40, 3\).*\(2, 64, 64, 3\)"):
        logits_function(np.zeros((2, 64, 64, 3), "float32"))
    with pytest.raises(ValueError, match=r"shape \(32, 40, 3\)"):
        logits_function(np.zeros((32, 40, 3), "float32"))


def test_functions_that_are_no_networks(tmp_path):
    import tensorflow as tf

    images = tf.TensorSpec((None, None, None, 3), tf.float32)
    silent = save_variables(tmp_path / "silent", [tf.Variable(1.0)])
    text = save_function(tmp_path / "text", lambda text: text, tf.TensorSpec((None,), tf.string))
    for folder in (silent, text):
        with pytest.raises(ValueError, match="must have a function of images"):
            ModuleFunction(folder)
    maps = save_function(tmp_path / "maps", lambda images: images, images)
    with pytest.raises(ValueError, match=r"one vector for each image.*\(2, 40, 40, 3\)"):
        ModuleFunction(maps)(np.ones((2, 40, 40, 3), "float32"))
    constant = save_function(tmp_path / "constant", lambda x: tf.ones([tf.shape(x)[0], 4]), images)
    with pytest.raises(ValueError, match="different outputs for different images"):
        ModuleFunction(constant).difference(lambda images: np.ones((len(images), 4)))
