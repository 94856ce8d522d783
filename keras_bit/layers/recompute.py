"""Layers whose activations are recomputed in the backward pass instead of saved until then."""

from typing import Any

import keras
from keras import ops


def recomputed(layer: keras.layers.Layer, x: Any) -> Any:
    """Returns `layer(x)`, saving only `x` for its gradient (Chen et al. 2016, arXiv 1604.06174).

    `keras.remat(layer)(x)` on PyTorch alone: on JAX that uses the variables of the layer's first
    trace, which are constants to every later one, and so loses their gradients; and XLA for CPUs,
    which ignores optimization barriers, merges what is recomputed with what was computed first.
    The layer must be built and have no state other than its weights.
    """
    if isinstance(x, keras.KerasTensor):
        return layer(x)
    if keras.backend.backend() == "torch":
        return keras.remat(layer)(x)

    def call(x, trainable, fixed):
        outputs, _ = layer.stateless_call(trainable, fixed, x)
        return outputs

    recompute = _with_jax if keras.backend.backend() == "jax" else keras.remat
    variables = layer.trainable_variables, layer.non_trainable_variables
    # Not `convert_to_tensor`, which leaves variables of TensorFlow what they are: as an argument
    # and as a variable each would get its gradient twice.
    return recompute(call)(x, *([ops.cast(v, v.dtype) for v in part] for part in variables))


def _with_jax(function):
    import jax

    @jax.custom_vjp
    def call(*arguments):
        return function(*arguments)

    def forward(*arguments):
        return function(*arguments), arguments

    def backward(arguments, upstream):
        # Nothing can be computed from these before the upstream gradient is there. Its first
        # value times zero cannot be simplified away, for it may be NaN.
        zero = 0 * upstream.ravel()[0]
        arguments = jax.tree.map(lambda value: value + zero.astype(value.dtype), arguments)
        return jax.vjp(function, *arguments)[1](upstream)

    call.defvjp(forward, backward)
    return call
