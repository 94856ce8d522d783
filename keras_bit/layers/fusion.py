"""Few passes over memory: functions that are compiled as one operation, and fused sums."""

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_bit.core.device import runs_on_cpu

# Compiling a function takes about 0.15 s, which smaller feature maps do not win back.
MIN_VALUES = 2**16
MAX_CHUNK_SIZE = 8
# So few rows XLA on a CPU sums in one scalar loop with what computes their values; more are summed
# in a loop of their own, and fewer are unrolled.
SLOW_ROWS = range(9, 33)
MAX_COMPLEX_CHANNELS = 512  # with more, XLA on a CPU generates scalar code again


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `function` one operation of TensorFlow's graphs, compiled with XLA where that pays.

    A graph that is not compiled as a whole, as Keras's are on a CPU, runs a function one operation
    after another, each a pass over memory. Small feature maps, and those of a size unknown when
    the graph is traced, are not worth compiling: every size is compiled separately. They too are
    traced once per size instead of at every call, of which a deep network has hundreds. On JAX,
    in eager mode, and in a graph that Keras exports, nothing changes: only TensorFlow itself can
    run a compiled function. Tensors are positional arguments, Python values keywords.
    """

    # One for each size: a function traced for unknown sizes would also be taken for known ones, and
    # the last bits of a run would depend on what its process had done before.
    @functools.cache
    def traced(sizes, jit_compile):
        import tensorflow as tf

        return tf.function(function, jit_compile=jit_compile, autograph=False)

    @functools.wraps(function)
    def call(x, *tensors, **options):
        if keras.backend.backend() != "tensorflow" or _is_eager(x) or _is_exported():
            return function(x, *tensors, **options)
        return traced(tuple(x.shape[1:]), _is_large(x))(x, *tensors, **options)

    return call


def runs_with_onednn() -> bool:
    """Whether oneDNN executes what is called here, one operation of TensorFlow after another.

    So it is on a CPU in eager mode, and in graphs that are neither compiled as a whole nor
    exported. It may be switched off, see `keras_bit.core.onednn`.
    """
    if keras.backend.backend() != "tensorflow" or not runs_on_cpu() or _is_exported():
        return False
    import tensorflow as tf
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    from tensorflow.python.util._pywrap_util_port import IsMklEnabled

    return IsMklEnabled() and not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def wide_dtype(dtype: str) -> str:
    """Returns the dtype for sums of values of a `dtype`: float32, or float64 for itself."""
    if dtype == "float64" and keras.backend.backend() == "torch":
        return dtype  # Keras takes float32 there.
    return keras.backend.result_type(dtype, "float32")


def with_control_dependency(x: Any, upstream: Any) -> Any:
    """Returns `x` with a control dependency on `upstream` in TensorFlow's graphs.

    Without it a gradient would begin with what it can compute from `x` alone, and keep the result
    in memory until `upstream` arrives.
    """
    if keras.backend.backend() != "tensorflow" or _is_eager(x):
        return x
    import tensorflow as tf

    with tf.control_dependencies([upstream]):
        return tf.identity(x)


def row_sums(terms: Callable[..., tuple], *arrays: Any) -> list[Any]:
    """Sums terms over the rows of arrays (batch, rows, channels), in few passes over them.

    `terms` maps arrays (batch, any rows, channels) to a tuple of one or two such; their sums are
    (batch, channels).
    """
    chunk_size = _chunk_size(arrays[0])
    if chunk_size == 1:
        return [ops.sum(term, axis=1) for term in terms(*arrays)]
    _, rows, channels = arrays[0].shape
    chunks = [ops.reshape(x, (-1, rows // chunk_size, chunk_size, channels)) for x in arrays]
    rows_of = (ops.unstack(x, axis=2) for x in chunks)
    parts = [terms(*at_row) for at_row in zip(*rows_of, strict=True)]
    sums = [sum(part[1:], part[0]) for part in zip(*parts, strict=True)]
    if len(arrays) == 1 or channels > MAX_COMPLEX_CHANNELS:
        return [ops.sum(each, axis=1) for each in sums]
    # XLA would read the arrays for each of two sums, but a complex number is one. Only gradients
    # read two arrays: forward passes are also converted for LiteRT, which has no complex numbers.
    both = ops.sum(_complex(*sums), axis=1)
    return [ops.real(both), ops.imag(both)]


def _complex(real, imaginary):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.complex(real, imaginary)
    import jax

    return jax.lax.complex(real, imaginary)


def _is_large(x):
    """Whether the size of `x` is known, and so large that compiling for it pays."""
    sizes = x.shape[1:]
    return None not in sizes and math.prod(sizes) >= MIN_VALUES


def _chunk_size(x):
    """How many rows are added elementwise before the sum proper; 1 where that has no use.

    XLA on a CPU generates vector code for a sum alone, but scalar code, six times as slow, for a
    sum together with the computation of its terms. Adding the rows of a chunk elementwise is
    plain arithmetic, which XLA vectorizes; the sum proper then reads an eighth of the values.
    """
    if not _is_large(x) or _is_eager(x) or _is_exported() or not runs_on_cpu():
        return 1
    rows = x.shape[1]
    sizes = (size for size in range(MAX_CHUNK_SIZE, 0, -1) if rows % size == 0)
    return next((size for size in sizes if rows // size not in SLOW_ROWS), 1)


def _is_eager(x):
    """Whether operations on `x` are executed one by one, and not traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    import jax

    return not isinstance(x, jax.core.Tracer)


def _is_exported():
    """Whether the graph that is traced is one for a file, by a `keras.export.ExportArchive`.

    So are those of `model.export`. Keras does not tell the layers of it in any other way.
    """
    frame: Any = sys._getframe()
    while frame := frame.f_back:
        if frame.f_globals.get("__name__", "").startswith("keras.src.export."):
            return True
    return False
