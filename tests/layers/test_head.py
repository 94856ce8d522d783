import keras
import numpy as np
import pytest

from keras_bit import ZeroInitHead
from tests.conftest import as_numpy


def test_starts_at_zero(rng):
    head = ZeroInitHead(7)
    np.testing.assert_array_equal(as_numpy(head(rng.normal(size=(3, 20)))), np.zeros((3, 7)))
    assert [w.shape for w in head.weights] == [(20, 7), (7,)]


def test_is_a_dense_layer_once_it_has_weights(rng):
    head = ZeroInitHead(3)
    head.build((None, 4))
    kernel, bias, x = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(5, 4))
    head.set_weights([kernel, bias])
    np.testing.assert_allclose(as_numpy(head(x)), x @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_under_every_policy(policy):
    keras.config.set_dtype_policy(policy)
    features = keras.ops.ones((2, 8), policy.removeprefix("mixed_"))
    assert keras.backend.standardize_dtype(ZeroInitHead(3)(features).dtype) == "float32"


def test_save_and_load(rng, reload_model):
    model = keras.Sequential([keras.Input((4,)), ZeroInitHead(3, kernel_regularizer="l2")])
    model.set_weights([rng.normal(size=(4, 3)), rng.normal(size=3)])
    x = rng.normal(size=(5, 4)).astype("float32")
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(x)), as_numpy(model(x)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    assert loaded.layers[-1].num_classes == 3


def test_refuses_bad_arguments():
    for bad in (0, -1, 2.5, "10", None, True):
        with pytest.raises(ValueError, match="`num_classes`.*Received"):
            ZeroInitHead(bad)
    with pytest.raises(ValueError, match="`dtype` must be float32"):
        ZeroInitHead(3, dtype="mixed_bfloat16")
