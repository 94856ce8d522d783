"""What the machine can do at best: the rate of a large matrix product."""

import functools
import time

import numpy as np

EDGE = 2048


@functools.cache
def _factors():
    rng = np.random.default_rng(0)
    return tuple(rng.random((EDGE, EDGE), np.float32) for _ in range(2))


def matrix_product_rate():
    """Times one float32 product of 2048x2048 matrices; returns operations per second."""
    a, b = _factors()
    start = time.perf_counter()
    a @ b
    return 2 * EDGE**3 / (time.perf_counter() - start)
