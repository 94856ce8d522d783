"""Gradients by the backend's own automatic differentiation, in float64 where the values are."""

import functools

import keras

from tests.conftest import as_numpy


def gradients(function, arguments, order=1, compiled=False):
    """Returns the gradients of a scalar function with respect to its arguments.

    Args:
        function: Takes the arguments as tensors.
        arguments: Tuple of arrays.
        order: 2 for those of the sum of all squared gradients.
        compiled: Whether to trace and compile first.
    """
    jax = keras.backend.backend() == "jax"
    found = (_with_jax if jax else _with_tensorflow)(function, arguments, order, compiled)
    return [as_numpy(gradient) for gradient in found]


def _with_jax(function, arguments, order, compiled):
    import jax

    every = tuple(range(len(arguments)))
    if order == 2:
        function = functools.partial(_norm_of, jax.grad(function, every))
    gradient = jax.grad(function, every)
    with jax.enable_x64(True):
        return (jax.jit(gradient) if compiled else gradient)(*map(jax.numpy.asarray, arguments))


def _with_tensorflow(function, arguments, order, compiled):
    import tensorflow as tf

    def gradient(function, *arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = function(*arguments)
        return tape.gradient(value, arguments)

    if order == 2:
        function = functools.partial(_norm_of, functools.partial(gradient, function))
    gradient = functools.partial(gradient, function)
    return (tf.function(gradient) if compiled else gradient)(*map(tf.constant, arguments))


def _norm_of(gradient, *arguments):
    return sum(keras.ops.sum(keras.ops.square(part)) for part in gradient(*arguments))
