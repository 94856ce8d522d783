import numpy as np

from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import leaves


def test_sizes_fall_with_the_third_power():
    sizes = leaves.sizes(frozen_stream(0), np.full(20_000, 0.1))
    assert 0.1 <= sizes.min() and sizes.max() <= leaves.LARGEST
    # With a density of r^-3, a share of (r^-2 - 0.9^-2) / (0.1^-2 - 0.9^-2) is larger than r.
    for r in (0.15, 0.2, 0.4):
        expected = (r**-2 - leaves.LARGEST**-2) / (0.1**-2 - leaves.LARGEST**-2)
        assert abs((sizes > r).mean() - expected) < 0.01
