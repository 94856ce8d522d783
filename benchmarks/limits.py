"""What the machine can do at best: the rate of a large matrix product."""

import functools
import time

EDGE = 2048
REPEATS = 5  # threads that slept take a while to wake


@functools.cache
def _factors():
    import tensorflow as tf

    return tuple(tf.random.stateless_uniform((EDGE, EDGE), (seed, 0)) for seed in range(2))


def matrix_product_rate():
    """Times float32 products of 2048x2048 matrices; operations per second of the fastest.

    They are TensorFlow's, from oneDNN. On a processor from AMD NumPy's OpenBLAS came to half of
    that, and its threads go on spinning for a while, in the way of whoever is timed next.
    """
    return 2 * EDGE**3 / min(_seconds_of_a_product() for _ in range(REPEATS))


def _seconds_of_a_product():
    import tensorflow as tf

    start = time.perf_counter()
    tf.matmul(*_factors()).numpy()
    return time.perf_counter() - start
