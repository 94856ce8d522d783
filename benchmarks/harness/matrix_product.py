"""The rate of a large matrix product: what the machine can do at best."""

import functools
import time

EDGE = 2048
REPEATS = 5  # threads that slept take a while to wake


@functools.cache
def _product():
    """A function that multiplies two matrices."""
    # Later than `--authors`, which the registry takes from the environment.
    from benchmarks.implementations.registry import HAS_TENSORFLOW

    return (_in_tensorflow if HAS_TENSORFLOW else _in_numpy)()


def _in_tensorflow():
    import tensorflow as tf

    a, b = (tf.random.stateless_uniform((EDGE, EDGE), (seed, 0)) for seed in range(2))
    return lambda: tf.matmul(a, b).numpy()


def _in_numpy():
    import numpy as np

    a, b = np.random.default_rng(0).random((2, EDGE, EDGE), np.float32)
    return lambda: a @ b


def matrix_product_rate():
    """Times float32 products of 2048x2048 matrices; operations per second of the fastest.

    They are TensorFlow's, from oneDNN, and NumPy's only where that is not installed. On a processor
    from AMD NumPy's OpenBLAS came to half of that, and its threads go on spinning for a while, in
    the way of whoever is timed next.
    """
    return 2 * EDGE**3 / min(_seconds_of_a_product() for _ in range(REPEATS))


def _seconds_of_a_product():
    multiply = _product()
    start = time.perf_counter()
    multiply()
    return time.perf_counter() - start
