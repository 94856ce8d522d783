"""This package's network in Keras on TensorFlow, on a GPU: mixed bfloat16, compiled by XLA."""

import functools

import tensorflow as tf

from benchmarks.harness.memory import memory
from benchmarks.implementations.keras_gpu import make_backbone, make_classifier, set_precision


def check_device(rehearsal):
    if not _gpus() and not rehearsal:
        raise RuntimeError(
            "TensorFlow must see a GPU. It has none; install `tensorflow[and-cuda]`."
        )


def start(name, work, case):
    """Returns a function that does the work once; its result may still be on its way."""
    set_precision()
    images, labels = map(tf.constant, case.batch())
    if work == "forward":
        network = make_backbone(name, case)
        return functools.partial(tf.function(network, jit_compile=True), images)
    return functools.partial(_training(make_classifier(case)), images, labels)


def _training(model):
    variables = model.trainable_variables

    @tf.function(jit_compile=True)
    def update(images, labels):
        with tf.GradientTape() as tape:
            loss = model.loss(labels, model(images, training=True))
        values = [variable.value for variable in variables]
        model.optimizer.apply(tape.gradient(loss, values), variables)
        return loss

    return update


def _gpus():
    return tf.config.list_physical_devices("GPU")


def wait_for(result):
    tf.test.experimental.sync_devices()


def numbers(result):
    return tf.reshape(tf.cast(result, tf.float32), [-1]).numpy().tolist()


def peak_memory():
    """Bytes on the GPU at the peak; in a rehearsal those of the process."""
    if _gpus():
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return memory("VmHWM")


def matrix_product(edge):
    a = tf.random.normal((edge, edge), dtype=tf.bfloat16)
    return functools.partial(tf.function(tf.matmul), a, a)
