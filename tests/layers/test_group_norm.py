import keras
import numpy as np
import pytest
from keras import ops

from keras_bit import GroupNorm
from keras_bit.layers import fusion
from keras_bit.layers.group_norm import choose_groups, group_norm
from tests import oracle
from tests.autodiff import gradients, normalized
from tests.conftest import as_numpy, not_on_torch


@pytest.mark.parametrize("groups, channels", [(32, 64), (4, 20), (1, 6), (8, 8)])
def test_equals_numpy_and_keras(rng, randomize, groups, channels):
    x = rng.normal(1.5, 2.0, size=(3, 7, 5, channels)).astype("float32")
    layer = GroupNorm(groups)
    layer.build(x.shape)
    randomize(layer)
    gamma, beta = as_numpy(layer.gamma), as_numpy(layer.beta)
    out = as_numpy(layer(x))
    np.testing.assert_allclose(out, oracle.group_norm(x, gamma, beta, groups), atol=1e-5)
    reference = keras.layers.GroupNormalization(groups, epsilon=1e-5)
    reference.build(x.shape)
    reference.set_weights([gamma, beta])
    np.testing.assert_allclose(out, as_numpy(reference(x)), atol=1e-5)


@pytest.fixture
def large_maps(monkeypatch):
    """Treats every map as a large one: compiled with XLA in graphs, and summed in chunks."""
    monkeypatch.setattr(fusion, "MIN_VALUES", 0)


@pytest.fixture(params=["small", "large"])
def map_size(request):
    if request.param == "large":
        request.getfixturevalue("large_maps")


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_equal_those_of_plain_code_in_float64(rng, relu, order):
    check_gradients(rng, relu, order, compiled=False)


@pytest.mark.parametrize(
    "relu, order",
    [(False, 1), (True, 1), (True, 2), pytest.param(False, 2, marks=pytest.mark.slow)],
)
def test_compiled_gradients_equal_those_of_plain_code_in_float64(rng, map_size, relu, order):
    check_gradients(rng, relu, order, compiled=True)


def check_gradients(rng, relu, order, compiled):
    x = rng.normal(1.5, 2.0, size=(3, 5, 4, 12))
    gamma, beta = rng.normal(1, 0.5, size=12), rng.normal(size=12)
    weights = rng.normal(size=x.shape)

    def loss(norm):
        return lambda *arguments: ops.sum(
            ops.square(norm(*arguments, 4, 1e-3, relu)) * ops.convert_to_tensor(weights)
        )

    expected = gradients(loss(plain_group_norm), (x, gamma, beta), order)
    found = gradients(loss(group_norm), (x, gamma, beta), order, compiled)
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-8, atol=1e-8)


def plain_group_norm(x, gamma, beta, groups, epsilon, relu):
    shape = ops.shape(x)
    x = normalized(ops.reshape(x, (*shape[:-1], groups, -1)), (1, 2, 4), epsilon)
    x = ops.reshape(x, shape) * gamma + beta
    return ops.relu(x) if relu else x


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=not_on_torch)])
@pytest.mark.parametrize("edges", [(8, 8), (7, 3), (1, 19), (1, 1)])
def test_equals_numpy_in_compiled_models(rng, map_size, edges, jit_compile):
    x = rng.normal(1.5, 2.0, size=(3, *edges, 8)).astype("float32")
    model = keras.Sequential([keras.Input(x.shape[1:]), GroupNorm(2, activation="relu")])
    model.compile(jit_compile=jit_compile)
    expected = np.maximum(oracle.group_norm(x.astype("float64"), 1.0, 0.0, 2), 0.0)
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-5)


def test_gradients_have_the_dtypes_of_their_values(rng):
    x = rng.normal(300, 300, size=(2, 9, 9, 8))
    gamma, beta = rng.normal(1, 0.5, size=8), rng.normal(size=8)
    narrow = x.astype("float16")

    def loss(x, gamma, beta):
        return ops.sum(ops.square(ops.cast(group_norm(x, gamma, beta, 4, 1e-5), "float32")))

    found = gradients(loss, (narrow, gamma.astype("float32"), beta.astype("float32")))
    expected = gradients(loss, (narrow.astype("float64"), gamma, beta))
    assert [array.dtype for array in found] == ["float16", "float32", "float32"]
    for array, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, exact, rtol=5e-3, atol=5e-3 * np.abs(exact).max())


def test_holds_where_the_mean_is_much_larger_than_the_deviation(rng, map_size):
    x = (1000 + rng.normal(size=(2, 8, 8, 8))).astype("float32")
    expected = oracle.group_norm(x.astype("float64"), 1.0, 0.0, 4)
    # A mean in float32 alone would be off by 3e-5.
    np.testing.assert_allclose(as_numpy(GroupNorm(4)(x)), expected, atol=3e-6)
    model = keras.Sequential([keras.Input(x.shape[1:]), GroupNorm(4)])
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=3e-6)
    gamma, beta = np.ones(8, "float32"), np.zeros(8, "float32")

    def loss(x, gamma, beta):
        return ops.sum(ops.power(group_norm(x, gamma, beta, 4, 1e-5), 3))

    found = gradients(loss, (x, gamma, beta), compiled=True)
    for ours, exact in zip(
        found, gradients(loss, tuple(a.astype("float64") for a in (x, gamma, beta))), strict=True
    ):
        np.testing.assert_allclose(ours, exact, atol=3e-6 * np.abs(exact).max())


def test_equals_numpy_where_one_pixel_is_an_outlier(rng, map_size):
    # The middle one, about which the moments are taken.
    x = rng.normal(size=(2, 9, 9, 8)).astype("float32")
    x[:, 4, 4] = 500.0
    expected = oracle.group_norm(x.astype("float64"), 1.0, 0.0, 4)
    model = keras.Sequential([keras.Input(x.shape[1:]), GroupNorm(4)])
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_statistics_are_float32_under_float16(rng, policy):
    # Squares of 300 overflow float16.
    x = (300 * rng.normal(size=(1, 8, 8, 8))).astype("float16")
    expected = oracle.group_norm(x.astype("float64"), 1.0, 0.0, 4)
    out = as_numpy(GroupNorm(4, dtype=policy)(x))
    assert out.dtype == np.float16
    np.testing.assert_allclose(out, expected, rtol=2e-3, atol=2e-3)


def test_one_pixel_and_activation():
    x = np.array([[[[1.0, 3.0, 5.0, 5.0]]]], "float32")
    out = as_numpy(GroupNorm(2, activation="relu")(x))
    # Group (1, 3): mean 2, variance 1; group (5, 5): variance 0.
    np.testing.assert_allclose(out[0, 0, 0], [0.0, 1 / np.sqrt(1 + 1e-5), 0.0, 0.0], atol=1e-6)


def test_choice_of_groups():
    for channels, expected in {4: 2, 8: 4, 16: 8, 32: 16, 64: 32, 80: 20, 96: 32, 4096: 32}.items():
        assert choose_groups(channels) == expected
        assert channels % expected == 0 and channels // expected >= 2


def test_save_and_load(rng, reload_model):
    model = keras.Sequential(
        [keras.Input((None, None, 8)), GroupNorm(4, epsilon=1e-3, activation="relu")]
    )
    x = rng.normal(size=(2, 5, 5, 8)).astype("float32")
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(x)), as_numpy(model(x)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


def test_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="`groups` must divide"):
        GroupNorm(5)(np.ones((1, 2, 2, 8), "float32"))
    for shape in ((2, 8), (None, 4, 4, None)):
        with pytest.raises(ValueError, match="`inputs` must be of shape .*Received: input_shape="):
            GroupNorm(4)(keras.KerasTensor(shape))
    with pytest.raises(ValueError, match="`groups`.*Received"):
        GroupNorm(0)
    with pytest.raises(ValueError, match="`epsilon`.*Received"):
        GroupNorm(1, epsilon=0)
