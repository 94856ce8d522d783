import keras
import numpy as np
import pytest
from keras import ops

from keras_bit import StandardizedConv2D
from keras_bit.layers.standardized_conv import standardize_kernel
from tests import oracle
from tests.autodiff import gradients, normalized
from tests.conftest import as_numpy


@pytest.mark.parametrize("kernel_size, strides", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2), (5, 3)])
@pytest.mark.parametrize("edges", [(8, 8), (9, 14)])
def test_equals_numpy(rng, randomize, kernel_size, strides, edges):
    x = rng.normal(size=(2, *edges, 5)).astype("float32")
    layer = StandardizedConv2D(6, kernel_size, strides)
    layer.build(x.shape)
    randomize(layer)
    padded = oracle.pad(x.astype("float64"), (kernel_size - 1) // 2)
    expected = oracle.convolve(padded, oracle.standardize(as_numpy(layer.kernel)), strides)
    np.testing.assert_allclose(as_numpy(layer(x)), expected, atol=2e-4)
    assert layer.compute_output_shape(x.shape) == expected.shape


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_standardizes_in_float32_under_float16(policy):
    # Kernels of 1e-4 have a variance of 1e-8, and float16 knows no epsilon of 1e-10.
    layer = StandardizedConv2D(4, 1, dtype=policy)
    layer.build((None, 4, 4, 64))
    kernel = np.random.default_rng(0).normal(0, 1e-4, (1, 1, 64, 4)).astype("float32")
    layer.kernel.assign(kernel)
    expected = oracle.standardize(as_numpy(layer.kernel).astype("float32"))
    x = np.eye(64, dtype="float32").reshape(1, 8, 8, 64)
    out = as_numpy(layer(x))
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.reshape(64, 4), expected[0, 0], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_equal_those_of_plain_code_in_float64(rng, compiled, order):
    kernel, weights = rng.normal(0.5, 0.2, (3, 3, 5, 4)), rng.normal(size=(3, 3, 5, 4))

    def loss(standardize):
        return lambda kernel: ops.sum(
            ops.square(standardize(kernel, 0.01)) * kernel * ops.convert_to_tensor(weights)
        )

    (expected,) = gradients(loss(plain_standardize), (kernel,), order)
    (found,) = gradients(loss(standardize_kernel), (kernel,), order, compiled)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def plain_standardize(kernel, epsilon):
    return normalized(kernel, (0, 1, 2), epsilon)


def test_constant_kernel_gives_zero_not_nan():
    layer = StandardizedConv2D(2, 3, kernel_initializer="ones")
    np.testing.assert_array_equal(as_numpy(layer(np.ones((1, 4, 4, 3), "float32"))), 0.0)


@pytest.mark.parametrize("mean", [0, 1, 100])
@pytest.mark.parametrize("compiled", [False, True])
def test_channels_are_not_moved_as_a_whole(rng, mean, compiled):
    # Of R50x3, whose 13,824 inputs are positive: they add up what all values of a channel have in
    # common, to this many times as much, while the outputs themselves grow with the root.
    kernel = rng.normal(mean, 1, (3, 3, 1536, 8)).astype("float32")
    found = standardized(kernel, compiled)
    expected = oracle.standardize(kernel)
    moved = np.mean(found - expected, (0, 1, 2)) * np.sqrt(kernel[..., 0].size)
    # Float32 rounds to 6e-8; sums of 1,728 chunks of 8 rows are off by some of that.
    np.testing.assert_allclose(moved, 0, atol=5e-6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def standardized(kernel, compiled):
    standardize = standardize_kernel
    if compiled and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        standardize = tf.function(standardize_kernel, autograph=False)
    if compiled and keras.backend.backend() == "jax":
        import jax

        standardize = jax.jit(standardize_kernel)
    return as_numpy(standardize(ops.convert_to_tensor(kernel)))


def test_the_effective_kernel_is_that_of_float64(rng):
    layer = StandardizedConv2D(8, 3)
    layer.build((None, 4, 4, 512))
    layer.kernel.assign(rng.normal(1, 0.01, layer.kernel.shape))
    expected = oracle.standardize(as_numpy(layer.kernel)).astype("float32")
    np.testing.assert_array_max_ulp(layer.effective_kernel(), expected, maxulp=1)


def test_unstandardized_uses_the_kernel_as_it_is(rng):
    layer = StandardizedConv2D(2, 1, standardize=False)
    x = rng.normal(size=(1, 4, 4, 3)).astype("float32")
    out = as_numpy(layer(x))
    np.testing.assert_allclose(out, x @ as_numpy(layer.kernel)[0, 0], atol=1e-5)


def test_save_and_load(rng, reload_model):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), StandardizedConv2D(4, 3, 2, kernel_regularizer="l2")]
    )
    x = rng.normal(size=(2, 9, 9, 3)).astype("float32")
    loaded = reload_model(model)
    np.testing.assert_array_equal(as_numpy(loaded(x)), as_numpy(model(x)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    assert len(loaded.losses) == 1


@pytest.mark.parametrize("name", ["filters", "kernel_size", "strides", "epsilon"])
def test_refuses_bad_arguments(name):
    arguments = {"filters": 4, "kernel_size": 3, name: 0}
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        StandardizedConv2D(**arguments)


@pytest.mark.parametrize("shape", [(None, 32, 3), (None, 8, 8, None)])
def test_refuses_what_are_no_maps(shape):
    with pytest.raises(ValueError, match="`inputs` must be of shape .*Received: input_shape="):
        StandardizedConv2D(8, 3)(keras.KerasTensor(shape))


def test_refuses_even_kernels():
    with pytest.raises(ValueError, match="`kernel_size` must be odd"):
        StandardizedConv2D(4, 2)


def test_trainable_kernels_stay_in_float32():
    for standardize, trainable, dtype in (
        (False, True, "float32"),
        (False, False, "bfloat16"),
        (True, False, "float32"),
    ):
        options = {"standardize": standardize, "trainable": trainable, "dtype": "mixed_bfloat16"}
        layer = StandardizedConv2D(2, 1, **options)
        layer.build((None, 4, 4, 3))
        assert layer.kernel.dtype == dtype
