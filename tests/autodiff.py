"""Gradients by the backend's own automatic differentiation, in float64 where the values are."""

import functools

import keras
import numpy as np
from keras import ops

from tests.conftest import as_numpy


def gradients(function, arguments, order=1, compiled=False):
    """Returns the gradients of a scalar function with respect to its arguments.

    Args:
        function: Takes the arguments as tensors.
        arguments: Tuple of arrays.
        order: 2 for those of the sum of all squared gradients.
        compiled: Whether to trace and compile first, but on PyTorch.
    """
    with_backend = {"jax": _with_jax, "tensorflow": _with_tensorflow, "torch": _with_torch}
    found = with_backend[keras.backend.backend()](function, arguments, order, compiled)
    return [as_numpy(gradient) for gradient in found]


def normalized(x, axes, epsilon):
    """Plain code for mean 0 and variance 1; `keras.ops.moments` takes the mean as constant in
    second derivatives on TensorFlow.
    """
    size = np.prod([x.shape[axis] for axis in axes])
    centered = x - ops.sum(x, axes, keepdims=True) / size
    variance = ops.sum(ops.square(centered), axes, keepdims=True) / size
    return centered / ops.sqrt(variance + epsilon)


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


def _with_torch(function, arguments, order, compiled):
    import torch

    def gradient(function, *arguments):
        return torch.autograd.grad(function(*arguments), arguments, create_graph=order == 2)

    if order == 2:
        function = functools.partial(_norm_of, functools.partial(gradient, function))
    return gradient(function, *(torch.tensor(a, requires_grad=True) for a in arguments))


def _norm_of(gradient, *arguments):
    return sum(ops.sum(ops.square(part)) for part in gradient(*arguments))
