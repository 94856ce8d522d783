import numpy as np

from keras_bit.core.random import frozen_stream


def test_a_stream_is_the_same_everywhere():
    # RandomState's streams are frozen: these numbers must never change.
    found = frozen_stream(0, 1, 2).randint(0, 1000, 4)
    np.testing.assert_array_equal(found, [240, 531, 82, 239])
    others = [frozen_stream(*seeds).randint(0, 2**31) for seeds in ((0, 1), (0, 2), (1, 1), (0,))]
    assert len({*others}) == 4
