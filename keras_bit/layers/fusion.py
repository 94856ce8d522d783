"""Few passes over memory: pieces of a layer that are compiled together, and sums read once."""

import functools
import math

import keras
from keras import ops

# Compiling a piece takes about 0.15 s, which maps of fewer values an image do not win back.
FEWEST_VALUES = 2**16
MOST_ROWS_AT_ONCE = 8
MOST_COMPLEX_CHANNELS = 512  # with more, XLA on a CPU makes scalar code again


def fused(function):
    """Makes `function` one operation of TensorFlow's graphs, compiled with XLA where that pays.

    A graph that is not compiled as a whole, as Keras's are on a CPU, runs a piece of it one
    operation after another, each a pass over memory. Small maps, and those whose size is not known
    when the graph is made, are not worth compiling: each size is compiled anew. They too are
    traced once for each size and not at every call, of which a deep network has hundreds. Under
    JAX, and in eager mode, nothing is changed.

    Args:
        function: Takes tensors, of which the first is a map (batch, height, width, channels), and
            Python values by name; returns tensors.
    """

    @functools.cache
    def traced(jit_compile):
        import tensorflow as tf

        return tf.function(function, jit_compile=jit_compile, autograph=False)

    @functools.wraps(function)
    def call(x, *tensors, **options):
        if keras.backend.backend() != "tensorflow" or _is_eager(x):
            return function(x, *tensors, **options)
        return traced(_is_large(x))(x, *tensors, **options)

    return call


def held_back(x, upstream):
    """Returns `x`, with which a graph of TensorFlow does nothing before `upstream` is there.

    A gradient would otherwise begin with what it can make of `x` alone, and keep that in memory.
    """
    if keras.backend.backend() != "tensorflow" or _is_eager(x):
        return x
    import tensorflow as tf

    with tf.control_dependencies([upstream]):
        return tf.identity(x)


def row_sums(terms, *arrays):
    """Sums of two terms over the rows of arrays (batch, rows, channels), in few passes over them.

    Args:
        terms: Function of arrays (batch, any rows, channels) to a tuple of two of them.
        *arrays: What it is given; all of the same shape.

    Returns:
        The sums of both terms, (batch, channels).
    """
    at_once = _rows_at_once(arrays[0])
    if at_once == 1:
        return tuple(ops.sum(term, axis=1) for term in terms(*arrays))
    _, rows, channels = arrays[0].shape
    split = [ops.reshape(x, (-1, rows // at_once, at_once, channels)) for x in arrays]
    rows_of = (ops.unstack(x, axis=2) for x in split)
    parts = [terms(*at_row) for at_row in zip(*rows_of, strict=True)]
    first, second = (sum(part[1:], part[0]) for part in zip(*parts, strict=True))
    if len(arrays) == 1 or channels > MOST_COMPLEX_CHANNELS:
        return ops.sum(first, axis=1), ops.sum(second, axis=1)
    # XLA would read the arrays for each of two sums, but a complex number is one. Only gradients
    # read two arrays: forward passes are also converted for LiteRT, which has no complex numbers.
    both = ops.sum(_complex(first, second), axis=1)
    return ops.real(both), ops.imag(both)


def _complex(real, imaginary):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.complex(real, imaginary)
    import jax

    return jax.lax.complex(real, imaginary)


def _is_large(x):
    """Whether a map's size is known, and so large that compiling for it pays."""
    sizes = x.shape[1:]
    return None not in sizes and math.prod(sizes) >= FEWEST_VALUES


def _rows_at_once(x):
    """How many rows are added up before the sum proper; 1 where that has no use.

    XLA on a CPU makes vector code of a sum alone, but scalar code of a sum and what it sums up,
    six times as slow. Added up by name, a few rows at once are plain arithmetic, which it turns
    into vector code: the sum proper is left with an eighth of the values.
    """
    if not _is_large(x) or _is_eager(x) or not _runs_on_cpu():
        return 1
    return next(step for step in range(MOST_ROWS_AT_ONCE, 0, -1) if x.shape[1] % step == 0)


def _runs_on_cpu():
    return all(device.startswith("cpu") for device in keras.distribution.list_devices())


def _is_eager(x):
    """Whether operations on `x` are run one by one, and not traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    import jax

    return not isinstance(x, jax.core.Tracer)
