"""Functions that are compiled as one operation."""

import pytest

from keras_bit.layers.fusion import fused

pytestmark = pytest.mark.tensorflow


def test_each_size_is_traced_for_itself_whatever_came_before():
    import tensorflow as tf

    traced = []

    @fused
    def double(x):
        traced.append(tuple(x.shape))
        return 2 * x

    for shape in ((None, None, None, 3), (None, 4, 4, 3), (None, 5, 5, 3), (None, 4, 4, 3)):
        tf.function(double, [tf.TensorSpec(shape)]).get_concrete_function()
    assert traced == [(None, None, None, 3), (None, 4, 4, 3), (None, 5, 5, 3)]
