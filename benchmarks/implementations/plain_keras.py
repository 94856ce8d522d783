"""A plain Keras 3 rendering of the network."""

import keras
from keras import ops

from benchmarks.implementations.keras_steps import forward, training

__all__ = ["forward", "plain", "training"]


class _StandardizedConv(keras.layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        kernel = ops.convert_to_tensor(kernel)  # JAX takes no variables here
        mean, variance = ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / ops.sqrt(variance + 1e-10))


def plain(case, weights):
    """The network in Keras's own layers: what one would write in an afternoon.

    Returns:
        A `keras.Model` from images in [0, 1] to features (batch, 2048 * width).
    """
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(2.0, -1.0)(inputs)
    x = _conv(x, "root_block", 64 * case.width, 7, 2)
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x))
    for block, count in enumerate(case.units, 1):
        for unit in range(1, count + 1):
            strides = 2 if unit == 1 and block > 1 else 1
            filters = 64 * case.width * 2 ** (block - 1)
            x = _unit(x, f"block{block}/unit{unit:02d}", filters, strides, project=unit == 1)
    x = keras.layers.GlobalAveragePooling2D()(_norm_relu(x, "group_norm"))
    model = keras.Model(inputs, x)
    for path, array in weights.items():
        layer, variable = path.rsplit("/", 1)
        getattr(model.get_layer(layer.replace("/", "_")), variable).assign(array)
    return model


def _unit(x, name, filters, strides, project):
    normalized = _norm_relu(x, f"{name}/a/group_norm")
    shortcut = _conv(normalized, f"{name}/a/proj", 4 * filters, 1, strides) if project else x
    x = _conv(normalized, f"{name}/a", filters, 1)
    x = _conv(_norm_relu(x, f"{name}/b/group_norm"), f"{name}/b", filters, 3, strides)
    x = _conv(_norm_relu(x, f"{name}/c/group_norm"), f"{name}/c", 4 * filters, 1)
    return keras.layers.Add()([x, shortcut])


def _conv(x, name, filters, size, strides=1):
    if size > 1:
        x = keras.layers.ZeroPadding2D(size // 2)(x)
    name = f"{name}/standardized_conv2d".replace("/", "_")
    return _StandardizedConv(filters, size, strides, use_bias=False, name=name)(x)


def _norm_relu(x, name):
    norm = keras.layers.GroupNormalization(32, epsilon=1e-5, name=name.replace("/", "_"))
    return keras.layers.ReLU()(norm(x))
