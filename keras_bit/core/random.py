"""Random numbers that are the same on every machine."""

import numpy as np


def frozen_stream(*seeds: int) -> np.random.RandomState:
    """Returns a `np.random.RandomState` that depends on all of `seeds`, integers from 0.

    RandomState is the one generator whose stream NumPy promises never to change.
    """
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seeds)))
