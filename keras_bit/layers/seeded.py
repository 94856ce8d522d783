"""What layers share that draw random numbers, in models and in `Dataset.map` with any backend."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.arguments import check_seed


class SeededLayer(keras.layers.Layer):
    """A layer with a sequence of seeds, which also works on TensorFlow's tensors under JAX.

    Args:
        seed: Non-negative integer. The same one gives the same sequence in every run; `None`
            another in each.
    """

    def __init__(self, seed: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_seed("seed", seed)
        self.generator = keras.random.SeedGenerator(self.seed)
        self._tensorflow_state: Any = None

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        if keras.backend.backend() != "tensorflow" and on_tensorflow(first_tensor(images)):
            # In a tf.data pipeline Keras on another backend would convert the tensors to its own.
            return self.call(images, *args, **kwargs)
        return super().__call__(images, *args, **kwargs)

    def next_tensorflow_seed(self, x: Any) -> Any:
        """Returns the next seed where `x` is in tf.data under another backend, else `None`."""
        if keras.backend.backend() == "tensorflow" or not on_tensorflow(x):
            return None
        import tensorflow as tf

        if self._tensorflow_state is None:
            # The graph of a `Dataset.map` cannot make variables of its own.
            with tf.init_scope():
                start = ops.convert_to_numpy(self.generator.state.value)
                self._tensorflow_state = tf.Variable(start.astype("int64"), trainable=False)
        seed = tf.identity(self._tensorflow_state)
        self._tensorflow_state.assign_add([0, 1])
        return seed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def generator_of(seed: Any) -> np.random.Generator:
    """Returns a generator of random numbers that is a function of a tensor (2,) of integers.

    PyTorch has no operations that draw by a seed, and its own generators take 32 bits of one.
    """
    return np.random.default_rng([int(number) & 0xFFFFFFFF for number in seed])


def on_tensorflow(x: Any) -> bool:
    """Whether `x` is a tensor of TensorFlow; does not import it."""
    return type(x).__module__.partition(".")[0] == "tensorflow"


def first_tensor(data: Any) -> Any:
    """Returns the first part of a dict, tuple or list; anything else as it is."""
    if isinstance(data, dict):
        return next(iter(data.values()), None)
    return data[0] if isinstance(data, (tuple, list)) and data else data
