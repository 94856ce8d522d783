"""What a TensorFlow user runs today: a SavedModel of BiT in `hub.KerasLayer` under tf_keras.

The SavedModel is written here, with the names and the behavior of the released modules.
"""

import tempfile
from functools import partial

import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

from benchmarks.harness.cases import CLASSES, LEARNING_RATE, MOMENTUM


def write_module(folder, case, weights):
    """Writes the network of `case` as a module of TensorFlow 2 that can be fine-tuned.

    Its function takes images (batch, height, width, 3) in [0, 1] and gives features.
    """
    variables = {
        name: tf.Variable(_released_form(array), name=f"resnet/{name}")
        for name, array in weights.items()
    }
    images = tf.TensorSpec((None, None, None, 3), tf.float32)

    @tf.function(autograph=False)
    def call(images, training=False):
        return _network(images, case, variables)

    for training in (True, False):
        call.get_concrete_function(images, training=training)
    module = tf.train.Checkpoint()
    module.__call__ = call
    module.variables = list(variables.values())
    module.trainable_variables = list(variables.values())
    module.regularization_losses = []
    tf.saved_model.save(module, folder)


def _released_form(array):
    return array.reshape(1, 1, 1, -1) if array.ndim == 1 else array


def _network(images, case, variables):
    conv, norm_relu = partial(_conv, variables), partial(_norm_relu, variables)
    x = _padded(conv(2.0 * images - 1.0, "root_block/", 2), 1)
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    for block, count in enumerate(case.units, 1):
        for unit in range(1, count + 1):
            path = f"block{block}/unit{unit:02d}/"
            strides = 2 if unit == 1 and block > 1 else 1
            y = norm_relu(x, f"{path}a/")
            shortcut = conv(y, f"{path}a/proj/", strides) if unit == 1 else x
            y = norm_relu(conv(y, f"{path}a/"), f"{path}b/")
            y = norm_relu(conv(y, f"{path}b/", strides), f"{path}c/")
            x = conv(y, f"{path}c/") + shortcut
    return tf.reduce_mean(norm_relu(x, ""), (1, 2))


def _conv(variables, x, path, strides=1):
    kernel = variables[f"{path}standardized_conv2d/kernel"]
    mean, variance = tf.nn.moments(kernel, (0, 1, 2), keepdims=True)
    x = _padded(x, kernel.shape[0] // 2)
    return tf.nn.conv2d(x, (kernel - mean) / tf.sqrt(variance + 1e-10), strides, "VALID")


def _padded(x, pad):
    return tf.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x


def _norm_relu(variables, x, path):
    gamma, beta = (
        tf.reshape(variables[f"{path}group_norm/{name}"], (32, -1)) for name in ("gamma", "beta")
    )
    grouped = tf.reshape(x, tf.concat([tf.shape(x)[:3], gamma.shape], 0))
    mean, variance = tf.nn.moments(grouped, (1, 2, 4), keepdims=True)
    normalized = tf.nn.batch_normalization(grouped, mean, variance, beta, gamma, 1e-5)
    return tf.nn.relu(tf.reshape(normalized, tf.shape(x)))


def _layer(case, weights):
    with tempfile.TemporaryDirectory() as folder:
        write_module(folder, case, weights)
        return hub.KerasLayer(folder, trainable=True, input_shape=(case.edge, case.edge, 3))


def forward(case, weights, jit_compile=False):
    """Returns a function that gives the features of the batch of `case`."""
    model = tf_keras.Sequential([_layer(case, weights)])
    model.compile(jit_compile=jit_compile)
    return partial(model.predict_on_batch, case.batch()[0])


def training(case, weights, jit_compile=False):
    """Returns a function that takes a training step and gives the loss before it."""
    head = tf_keras.layers.Dense(CLASSES, kernel_initializer="zeros")
    model = tf_keras.Sequential([_layer(case, weights), head])
    model.compile(
        optimizer=tf_keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=tf_keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return partial(model.train_on_batch, *case.batch())
