"""This package's network in Keras on a GPU, whatever the backend: mixed bfloat16."""

import keras

import keras_bit
from benchmarks.harness.cases import CLASSES, LEARNING_RATE, MOMENTUM
from benchmarks.implementations.keras_bit_network import backbone, folded


def set_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")


def make_backbone(name, case):
    """The backbone of the implementation `name`, folded if the name says so."""
    make = folded if "folded" in name else backbone
    return make(case, case.weights())


def make_classifier(case):
    """A compiled model with all of its variables."""
    head = keras_bit.ZeroInitHead(CLASSES)
    images = keras.Input((case.edge, case.edge, 3))
    model = keras.Sequential([images, backbone(case, case.weights()), head])
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)
    return model
