"""SGD with momentum in one pass over memory."""

from typing import Any

import keras

from keras_bit.core.saving import register

# On PyTorch Keras makes an optimizer of a subclass, which updates all arrays at once; but not where
# `keras.optimizers.SGD` itself is subclassed.
_KerasSGD: Any = type(keras.optimizers.SGD.__new__(keras.optimizers.SGD))


@register
class SGD(_KerasSGD):
    """SGD with momentum whose update is one operation for each array on TensorFlow.

    Keras multiplies, subtracts, assigns and adds, each a pass over the weights; the result is the
    same. Arguments, state and saved files are those of `keras.optimizers.SGD`. What the one
    operation cannot do (sparse gradients, no momentum, other backends) Keras does.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not self.momentum or not _is_dense_tensorflow(gradient):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        momentum = self.momentums[self._get_variable_index(variable)].value
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=momentum.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


def _is_dense_tensorflow(gradient):
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not isinstance(gradient, tf.IndexedSlices)
